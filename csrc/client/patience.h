/* patience.h: how the client waits. */
#ifndef PYSOCK_CLIENT_PATIENCE_H
#define PYSOCK_CLIENT_PATIENCE_H

#include "client/share.h"

/* Of one call. The moments but the deadline are 0 where nothing has been waited for yet. */
typedef struct ps_patience {
    uint64_t deadline_ns, began_ns, linger_until_ns;
    bool lingers;
} ps_patience;

/* Nothing moves: go round once more while the window lasts, then sleep until something can move. -ETIMEDOUT, or another
 * reason to end the call. */
int ps__link_wait(ps_link *link, ps_caller *call, ps_patience *p, bool wants_to_write);
/* Something has moved. */
void ps__link_waited(ps_link *link, ps_patience *p);

#endif
