/* SPDX-License-Identifier: MIT
 * quota-bench N: ns of CPU time that accounting and an open rate add to one transfer, as the engine
 * does them: two clock reads and a bucket; with a rate also its test, its spending and what is
 * given back.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "protocol/pace.h"
#include "protocol/worker.h"

static volatile uint64_t buckets[WORKER_LATENCY_BUCKETS];
static volatile uint64_t sum;

static void account(void)
{
	uint64_t begun = now_ns(), ns = now_ns() - begun, usec = ns / 1000;
	unsigned int bucket = usec > 0 ? 64 - (unsigned int)__builtin_clzll(usec) : 0;

	sum += ns;
	buckets[bucket < WORKER_LATENCY_BUCKETS ? bucket : WORKER_LATENCY_BUCKETS - 1]++;
}

static void pace(struct pace_page *p)
{
	uint64_t now = now_ns();

	sum += pace_wait(p, now);
	pace_spend(p, now, 4096);
	pace_refund(p, 100);
}

int main(int argc, char **argv)
{
	uint64_t n = argc == 2 ? strtoull(argv[1], NULL, 10) : 0, at[3];
	struct pace_page page = {0};

	if (n == 0) {
		fprintf(stderr, "usage: quota-bench N\n");
		return EXIT_FAILURE;
	}
	pace_set(&page, UINT64_C(1) << 40, 100000000);
	at[0] = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
	for (uint64_t i = 0; i < n; i++) {
		account();
	}
	at[1] = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
	for (uint64_t i = 0; i < n; i++) {
		pace(&page);
	}
	at[2] = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
	printf("%" PRIu64 " %" PRIu64 "\n", (at[1] - at[0]) / n, (at[2] - at[1]) / n);
	return EXIT_SUCCESS;
}
