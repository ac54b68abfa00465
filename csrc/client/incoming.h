/* incoming.h: what comes in on a link. */
#ifndef PYSOCK_CLIENT_INCOMING_H
#define PYSOCK_CLIENT_INCOMING_H

#include "client/outgoing.h"
#include "client/patience.h"
#include "client/share.h"

void ps__link_drop_part(ps_link *link, ps_sink *sink);
/* Hand on the whole frames of the buffer, until the call has what it wants; keep the rest. */
int ps__link_cut_frames(ps_link *link, ps_caller *call);
/* Frames that are here, or what the kernel has. 1: the call has what it wants; 0: go on; *idle: nothing came. */
int ps__link_receive_some(ps_link *link, ps_caller *call, ps_patience *p, bool *idle);

#endif
