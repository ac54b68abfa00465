/* ids.c: which ids of requests are in flight, and whose request each is: a hash table with linear probing, of all clients
 * together. Only requests that their clients may cancel are in it, so it exists only where there have been some. */
#include <string.h>

#include "base/ids.h"
#include "base/mixed.h"
#include "base/sys.h"

enum { FIRST_ROOM_OF_IDS = 64 };

static uint32_t home_of(const ps_ids *ids, uint64_t client_id, uint32_t request_id)
{
    return (uint32_t)ps__mixed(ps__mixed(client_id ^ ids->seed) ^ request_id) & (ids->room - 1);
}

/* The row of this request, or the free one where it would be. */
static uint32_t row_of_id(const ps_ids *ids, uint64_t client_id, uint32_t request_id)
{
    uint32_t row = home_of(ids, client_id, request_id);
    while (ids->rows[row].value && (ids->rows[row].client_id != client_id || ids->rows[row].request_id != request_id))
        row = (row + 1) & (ids->room - 1);
    return row;
}

static bool grow_ids(ps_ids *ids)
{
    ps_ids grown = {.room = ids->room ? 2 * ids->room : FIRST_ROOM_OF_IDS, .used = ids->used, .seed = ids->seed};
    grown.rows = ps_sys.allocate(grown.room * sizeof *grown.rows);
    if (!grown.rows)
        return false;
    memset(grown.rows, 0, grown.room * sizeof *grown.rows);
    for (uint32_t row = 0; row < ids->room; row++) {
        const ps_id *id = &ids->rows[row];
        if (id->value)
            grown.rows[row_of_id(&grown, id->client_id, id->request_id)] = *id;
    }
    ps__free(ids->rows);
    *ids = grown;
    return true;
}

uint64_t ps__ids_find(const ps_ids *ids, uint64_t client_id, uint32_t request_id)
{
    return ids->used ? ids->rows[row_of_id(ids, client_id, request_id)].value : 0;
}

bool ps__ids_put(ps_ids *ids, uint64_t client_id, uint32_t request_id, uint64_t value)
{
    if (2 * (ids->used + 1) > ids->room && !grow_ids(ids))
        return false;
    ids->rows[row_of_id(ids, client_id, request_id)] = (ps_id){client_id, value, request_id};
    ids->used++;
    return true;
}

/* The rows behind a freed one move up, or they could not be found any more (Knuth, volume 3, 6.4, algorithm R). */
static void close_gap_of_ids(ps_ids *ids, uint32_t gap)
{
    uint32_t mask = ids->room - 1;
    for (uint32_t row = (gap + 1) & mask; ids->rows[row].value; row = (row + 1) & mask) {
        uint32_t distance = (row - home_of(ids, ids->rows[row].client_id, ids->rows[row].request_id)) & mask;
        if (distance < ((row - gap) & mask))
            continue;
        ids->rows[gap] = ids->rows[row];
        gap = row;
    }
    ids->rows[gap].value = 0;
}

bool ps__ids_take(ps_ids *ids, uint64_t client_id, uint32_t request_id, uint64_t value)
{
    if (!ids->used)
        return false;
    uint32_t row = row_of_id(ids, client_id, request_id);
    if (ids->rows[row].value != value)
        return false;
    ids->used--;
    close_gap_of_ids(ids, row);
    return true;
}

void ps__ids_close(ps_ids *ids)
{
    ps__free(ids->rows);
    *ids = (ps_ids){.seed = ids->seed};
}
