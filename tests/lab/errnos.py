"""What each system call of ours may fail with.

A line is ``call | source | errnos``. The call's name is that of its member in ``ps_sys_table`` (csrc/base/sys.h), or
that of the function in the module ``os``. The source is the section ERRORS of that page of the Linux man-pages 6.03;
what another page or the kernel's own code adds has a line of its own. EWOULDBLOCK is EAGAIN. Left out is ERESTARTSYS,
which a program never sees.
"""

from __future__ import annotations

import errno

_TABLE = """
socket | socket(2) | EACCES EAFNOSUPPORT EINVAL EMFILE ENFILE ENOBUFS ENOMEM EPROTONOSUPPORT
bind | bind(2) | EACCES EADDRINUSE EADDRNOTAVAIL EBADF EFAULT EINVAL ELOOP ENAMETOOLONG ENOENT ENOMEM ENOTDIR
bind | bind(2) | ENOTSOCK EROFS
listen | listen(2) | EADDRINUSE EBADF ENOTSOCK EOPNOTSUPP
connect | connect(2) | EACCES EADDRINUSE EADDRNOTAVAIL EAFNOSUPPORT EAGAIN EALREADY EBADF ECONNREFUSED EFAULT
connect | connect(2) | EINPROGRESS EINTR EISCONN ENETUNREACH ENOTSOCK EPERM EPROTOTYPE ETIMEDOUT
accept4 | accept(2) | EAGAIN EBADF ECONNABORTED EFAULT EINTR EINVAL EMFILE ENFILE ENOBUFS ENOMEM ENOSR ENOTSOCK
accept4 | accept(2) | EOPNOTSUPP EPERM EPROTO EPROTONOSUPPORT ESOCKTNOSUPPORT ETIMEDOUT
accept4 | accept(2), "Error handling" | ENETDOWN ENOPROTOOPT EHOSTDOWN ENONET EHOSTUNREACH ENETUNREACH
recvfrom | recv(2) | EAGAIN EBADF ECONNREFUSED EFAULT EINTR EINVAL ENOMEM ENOTCONN ENOTSOCK
recvfrom | tcp(7), ip(7) | ECONNRESET ENOBUFS ETIMEDOUT EHOSTUNREACH
recvmsg | recv(2) | EAGAIN EBADF ECONNREFUSED EFAULT EINTR EINVAL ENOMEM ENOTCONN ENOTSOCK
recvmsg | tcp(7), ip(7) | ECONNRESET ENOBUFS ETIMEDOUT EHOSTUNREACH
sendto | send(2) | EACCES EAGAIN EALREADY EBADF ECONNRESET EDESTADDRREQ EFAULT EINTR EINVAL EISCONN EMSGSIZE ENOBUFS
sendto | send(2) | ENOMEM ENOTCONN ENOTSOCK EOPNOTSUPP EPIPE
sendto | tcp(7), ip(7) | ETIMEDOUT EHOSTUNREACH
sendmsg | send(2) | EACCES EAGAIN EALREADY EBADF ECONNRESET EDESTADDRREQ EFAULT EINTR EINVAL EISCONN EMSGSIZE
sendmsg | send(2) | ENOBUFS ENOMEM ENOTCONN ENOTSOCK EOPNOTSUPP EPIPE
sendmsg | tcp(7), ip(7) | ETIMEDOUT EHOSTUNREACH
getsockopt | getsockopt(2) | EBADF EFAULT EINVAL ENOPROTOOPT ENOTSOCK
getsockopt | unix(7) | ENODATA
setsockopt | setsockopt(2) | EBADF EFAULT EINVAL ENOPROTOOPT ENOTSOCK
setsockopt | socket(7), ip(7) | ENOMEM ENOBUFS EPERM
shutdown | shutdown(2) | EBADF EINVAL ENOTCONN ENOTSOCK
epoll_create1 | epoll_create1(2) | EINVAL EMFILE ENFILE ENOMEM
epoll_ctl | epoll_ctl(2) | EBADF EEXIST EINVAL ELOOP ENOENT ENOMEM ENOSPC EPERM
epoll_wait | epoll_wait(2) | EBADF EFAULT EINTR EINVAL
ppoll | poll(2) | EFAULT EINTR EINVAL ENOMEM
timerfd_create | timerfd_create(2) | EINVAL EMFILE ENFILE ENODEV ENOMEM EPERM
timerfd_settime | timerfd_create(2) | EBADF EFAULT EINVAL ECANCELED
pipe2 | pipe(2) | EFAULT EINVAL EMFILE ENFILE ENOPKG
read | read(2) | EAGAIN EBADF EFAULT EINTR EINVAL EIO EISDIR
write | write(2) | EAGAIN EBADF EDESTADDRREQ EDQUOT EFAULT EFBIG EINTR EINVAL EIO ENOSPC EPERM EPIPE
write | fs/pipe.c: pipe_write() has no page | ENOMEM
close | close(2) | EBADF EDQUOT EINTR EIO ENOSPC
unlink | unlink(2) | EACCES EBADF EBUSY EFAULT EINVAL EIO EISDIR ELOOP ENAMETOOLONG ENOENT ENOMEM ENOTDIR EPERM
unlink | unlink(2) | EROFS
open | open(2) | EACCES EINTR EINVAL ELOOP EMFILE ENAMETOOLONG ENFILE ENODEV ENOENT ENOMEM ENOSPC ENOTDIR ENXIO
open | open(2) | EPERM EROFS
lstat | stat(2) | EACCES EBADF EFAULT EINVAL ELOOP ENAMETOOLONG ENOENT ENOMEM ENOTDIR EOVERFLOW
chmod | chmod(2) | EACCES EBADF EFAULT EINVAL EIO ELOOP ENAMETOOLONG ENOENT ENOMEM ENOTDIR EPERM EROFS
fchmod | chmod(2) | EBADF EIO EPERM EROFS
chown | chown(2) | EACCES EBADF EFAULT EINVAL EIO ELOOP ENAMETOOLONG ENOENT ENOMEM ENOTDIR EPERM EROFS
fcntl | fcntl(2) | EBADF EINVAL EPERM
flock | flock(2) | EBADF EINTR EINVAL ENOLCK EWOULDBLOCK
"""


def _parsed() -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for line in _TABLE.strip().splitlines():
        call, _source, names = line.split("|")
        found.setdefault(call.strip(), []).extend(getattr(errno, name) for name in names.split())
    return found


#: By the name of the call: its errnos, in the order of the table.
ERRNOS = _parsed()
