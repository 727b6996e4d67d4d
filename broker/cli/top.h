/* SPDX-License-Identifier: MIT
 * What top says: a table of VMs and one of lent devices.
 */
#pragma once

#include <stdio.h>

#include "broker/cli/cli.h"

enum top_order {
	TOP_BY_NAME,
	TOP_BY_USB, /* what moves most bytes first */
	TOP_BY_GPU, /* VMs that draw most first; devices by name */
	TOP_ORDER_COUNT_,
};

/* Prints them as they are in all, with what became of the counters of before (empty: nothing is
 * known of it), in width columns (0: as many as it takes). */
void top_print(FILE *out, const struct cli *c, const struct cli_all *all,
	const struct cli_all *before, size_t width, enum top_order order);

/* In one line: how many VMs are there, how many devices are lent, and what goes over USB. */
void top_print_sum(FILE *out, const struct cli_all *all);
