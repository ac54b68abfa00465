/* part.h: what is half received of a frame. False: there is no memory. */
#ifndef PYSOCK_CONN_PART_H
#define PYSOCK_CONN_PART_H

#include "core/engine.h"

bool ps__part_begin(ps_engine *engine, ps_conn *conn, const ps_frame *head, const uint8_t *data, size_t size);
bool ps__part_add(ps_engine *engine, ps_part *part, const uint8_t *data, size_t size);
bool ps__part_grow(ps_engine *engine, ps_part *part, uint32_t more);
bool ps__part_resize(ps_engine *engine, ps_part *part, uint32_t room);
void ps__part_forget_guess(ps_engine *engine, const ps_part *part);
void ps__part_free(ps_engine *engine, ps_part *part);
void ps__drop_input(ps_engine *engine, ps_conn *conn);

#endif
