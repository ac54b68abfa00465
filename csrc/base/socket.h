/* socket.h: options of sockets. */
#ifndef PYSOCK_BASE_SOCKET_H
#define PYSOCK_BASE_SOCKET_H

#include "pysock.h"

int ps__family(int fd);
void ps__no_delay(int fd);
/* Find out when the peer of a TCP socket vanishes. */
void ps__watch_over(int fd, const ps_limits *limits);
int ps__tell_when_sent(int fd);

#endif
