/* rows.h: many rows of the client table, packed. */
#ifndef PYSOCK_TABLE_ROWS_H
#define PYSOCK_TABLE_ROWS_H

#include "core/engine.h"

enum { PS_TEXTS_MAX = 2 * PS_NAME_MAX + PS_ADDRESS_MAX + PS_VIA_MAX }; /* of one row */

/* Packs a row and its texts, which begin there, counted from the end of all rows; how many bytes these are. */
size_t ps__pack_row(const ps_info *info, ps_row *row, uint8_t *texts, size_t at);

#endif
