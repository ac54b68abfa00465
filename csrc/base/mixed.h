/* mixed.h: where something lies in a hash table: splitmix64's mixer (Steele, Lea and Flood, 2014). Whoever can choose what
 * is looked up must not be able to choose its row: a seed that is another in each engine goes in first. */
#ifndef PYSOCK_BASE_MIXED_H
#define PYSOCK_BASE_MIXED_H

#include <stdint.h>

static inline uint64_t ps__mixed(uint64_t word)
{
    word = (word ^ word >> 30) * 0xBF58476D1CE4E5B9u;
    word = (word ^ word >> 27) * 0x94D049BB133111EBu;
    return word ^ word >> 31;
}

#endif
