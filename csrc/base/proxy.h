/* proxy.h: the header of the PROXY protocol, by which a proxy says for whom it connects. */
#ifndef PYSOCK_BASE_PROXY_H
#define PYSOCK_BASE_PROXY_H

#include "pysock.h"

enum {
    PS_PROXY_LINE = 107, /* bytes of a line of version 1 at most; so many tell how long a header is, or that it is none */
    PS_PROXY_HEAD = 16,  /* of version 2, in front of its addresses */
    PS_PROXY_PATH = 108, /* the address of a Unix socket, there */
};

#endif
