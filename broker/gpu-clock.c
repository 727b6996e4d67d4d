/* SPDX-License-Identifier: MIT */
#include "broker/gpu-clock.h"

#include "base/checked.h"

#define LEAP_NS UINT64_C(60000000000) /* more than that at once a page is not believed */

#define ENGINES_MAX 64 /* kinds of them that can be busy at once */

uint64_t gpu_cycles_ns(struct gpu_cycles *c, uint64_t own, uint64_t all, uint64_t now_ns)
{
	/* Its own may go back for a while. All do when the GPU's counter is full: what was used
	 * from the last reading to that one is lost then. */
	uint64_t more = own - MIN(c->own, own), of = all - MIN(c->all, all);
	double busy;

	if (c->at_ns > 0 && of > 0) {
		busy = MIN((double)more / (double)of, (double)ENGINES_MAX);
		c->busy_ns += (uint64_t)(busy * (double)(now_ns - MIN(c->at_ns, now_ns)));
	}
	if (c->at_ns == 0 || all != c->all) {
		c->own += more;
		c->all = all;
		c->at_ns = now_ns;
	}
	return c->busy_ns;
}

static void use(struct gpu_clock *c, uint64_t ns)
{
	if (!u64_add(c->used_ns, ns, &c->used_ns)) {
		c->used_ns = UINT64_MAX;
	}
}

void gpu_clock_begin(struct gpu_clock *c, uint64_t page_ns)
{
	c->from = GPU_TIME_RENDERER;
	c->page_ns = page_ns;
	c->kernel_ns = c->by_page_ns = 0;
}

void gpu_clock_kernel(struct gpu_clock *c, bool counts, uint64_t engine_ns)
{
	uint64_t ns = engine_ns - MIN(c->kernel_ns, engine_ns);

	c->from = counts && engine_ns > 0 ? GPU_TIME_KERNEL : GPU_TIME_RENDERER;
	if (c->from == GPU_TIME_KERNEL) {
		/* Some of it was counted already, while the kernel could not be asked. */
		use(c, ns - MIN(c->by_page_ns, ns));
		c->kernel_ns += ns;
	}
	c->by_page_ns = 0;
}

void gpu_clock_page(struct gpu_clock *c, uint64_t page_ns)
{
	uint64_t ns = page_ns - c->page_ns;

	c->page_ns = page_ns;
	if (c->from != GPU_TIME_KERNEL && ns <= LEAP_NS) {
		use(c, ns);
		c->by_page_ns += ns;
	}
}

uint64_t gpu_clock_grant(const struct gpu_clock *c, uint64_t granted_ns)
{
	uint64_t left = granted_ns - MIN(c->used_ns, granted_ns);

	if (granted_ns == UINT64_MAX) {
		return UINT64_MAX;
	}
	return c->page_ns + MIN(left, UINT64_MAX - 1 - MIN(c->page_ns, UINT64_MAX - 1));
}
