/* SPDX-License-Identifier: MIT */
#include "tests/benches/gpu-bench.h"

#include <sched.h>
#include <stdlib.h>

void bench_pin(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET((size_t)cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set) < 0) {
		bench_fail("it takes two CPUs");
	}
}

_Noreturn void bench_fail(const char *what)
{
	fprintf(stderr, "gpu-bench: %s\n", what);
	exit(EXIT_FAILURE);
}

void bench_add(struct bench_samples *s, uint64_t ns)
{
	if (s->n == s->max) {
		s->max = s->max ? s->max * 2 : 4096;
		s->ns = realloc(s->ns, s->max * sizeof(*s->ns));
		if (!s->ns) {
			bench_fail("out of memory");
		}
	}
	s->ns[s->n++] = ns;
}

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

double bench_percentile(struct bench_samples *s, double p)
{
	size_t at;

	if (s->n == 0) {
		bench_fail("nothing was measured");
	}
	qsort(s->ns, s->n, sizeof(*s->ns), compare);
	at = (size_t)((double)s->n * p / 100);
	return (double)s->ns[at < s->n ? at : s->n - 1] / 1e3;
}

void bench_forget(struct bench_samples *s)
{
	free(s->ns);
	*s = (struct bench_samples){0};
}
