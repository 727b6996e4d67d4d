/* SPDX-License-Identifier: MIT
 * What counters mean: rates between two looks, and how long transfers took.
 */
#pragma once

#include <jansson.h>
#include <stdint.h>

/* The bound in µs under which so many of 1000 transfers stayed, as its histogram's bucket has it;
 * 0: there were none. before (may be NULL) holds those that don't count. */
uint64_t rates_latency(const json_t *latency, const json_t *before, unsigned int permille);

/* How fast a GPU's counter grew per second between two looks at it, both as of when its numbers
 * were heard; -1: unknown. before may be NULL. */
double rates_gpu(const json_t *gpu, const json_t *before, const char *key);

/* The object of list whose key says name, or NULL. */
json_t *rates_find(const json_t *list, const char *key, const char *name);
