/* timers.h: deadlines. */
#ifndef PYSOCK_TABLE_TIMERS_H
#define PYSOCK_TABLE_TIMERS_H

#include "core/engine.h"

void ps__timer_start(ps_engine *engine, ps_conn *conn, enum ps_timer_list list);
void ps__timer_start_now(ps_engine *engine, ps_conn *conn, enum ps_timer_list list); /* handlers may have run */
void ps__timer_stop(ps_engine *engine, ps_conn *conn, enum ps_timer_link link);
ps_conn *ps__timer_first(const ps_engine *engine, enum ps_timer_list list);
uint32_t ps__timer_age_ms(const ps_engine *engine, const ps_conn *conn, enum ps_timer_list list); /* one that runs */
ps_conn *ps__timers_pop_late(ps_engine *engine, enum ps_timer_list *list); /* one after the other; NULL: that was all */
/* It stands still, with what is left of it; and goes on. The first is called where the deadline may run, the second once after. */
void ps__timer_rest(ps_engine *engine, ps_conn *conn, enum ps_timer_link link);
void ps__timer_wake(ps_engine *engine, ps_conn *conn, enum ps_timer_link link);
/* One that rests: its list, and how long it has run; -1: none does. And make one rest that has so much left. */
int ps__timer_resting(const ps_conn *conn, enum ps_timer_link link, uint32_t *ran_ms);
uint32_t ps__timer_left_ms(const ps_engine *engine, enum ps_timer_list list, uint32_t ran_ms);
void ps__timer_rests(const ps_engine *engine, ps_conn *conn, enum ps_timer_list list, uint32_t left_ms);
void ps__timers_clear(ps_engine *engine); /* nobody's runs */
void ps__timers_worked(ps_engine *engine); /* the work of a turn is done, now_ns is its end */
/* The clock of a list, at a moment of this turn. */
uint32_t ps__timer_clock_ms(const ps_engine *engine, enum ps_timer_list list, uint64_t moment_ns);
uint64_t ps__timers_due_ns(const ps_engine *engine); /* UINT64_MAX: none runs */

#endif
