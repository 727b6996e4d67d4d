/* SPDX-License-Identifier: MIT
 * One round of tests/bench policy: policy-bench DIR DEVICES. Reads the rules in DIR and decides
 * about that many devices, with the index and by looking at every line. Prints a JSON object, times
 * in nanoseconds.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "broker/policy.h"
#include "broker/usb-facts.h"

struct device {
	struct usb_facts facts;
	char key[48];
	char serial[24];
	char *properties[1];
};

/* Every other one is one that a rule names (tests/benches/policy.py has the same numbers). */
static void make(struct device *d, uint32_t i)
{
	static char maker[] = "Maker", product[] = "Product of theirs", speed[] = "480",
		    removable[] = "removable";

	snprintf(d->key, sizeof(d->key), "usb:0000:00:14.0-%u.%u", i % 16 + 1, i / 16 + 1);
	snprintf(d->serial, sizeof(d->serial), "%s%06u", i % 2 ? "S" : "N", i);
	d->facts = (struct usb_facts){
		.key = d->key,
		.serial = d->serial,
		.manufacturer = maker,
		.product_name = product,
		.speed = speed,
		.removable = removable,
		.vendor = (uint16_t)(0x1000 + i % 97),
		.product = (uint16_t)(i % 1009),
		.classes = {{0x08, 0x06, 0x50}},
		.n_classes = 1,
		.classes_complete = true,
		.properties = d->properties,
		.descriptor_hash = "1:00112233445566778899aabbccddeeff",
	};
}

static const char *vm_state(void *userdata, const char *vm)
{
	return "up";
}

static void looked(void *userdata, const struct policy_rule *rule, size_t match, const char *failed)
{
	++*(uint64_t *)userdata;
}

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

/* Decides about all of them; ns gets what each took, sorted. Returns how many a rule matched. */
static unsigned int decide_all(const struct policy *p, const struct device *devices, uint32_t n,
	const struct policy_trace *trace, uint64_t *ns, uint64_t *total_out)
{
	const struct policy_context context = {.vm_state = vm_state, .since_boot = 100};
	uint64_t begin = now_ns();
	unsigned int matched = 0;

	for (uint32_t i = 0; i < n; i++) {
		uint64_t start = now_ns();
		struct policy_decision d;

		policy_decide(p, &devices[i].facts, &context, trace, &d);
		ns[i] = now_ns() - start;
		matched += d.rule != NULL;
	}
	*total_out = now_ns() - begin;
	qsort(ns, n, sizeof(*ns), compare);
	return matched;
}

int main(int argc, char **argv)
{
	uint32_t n = argc == 3 ? (uint32_t)strtoul(argv[2], NULL, 10) : 0;
	struct device *devices = calloc(n + 1, sizeof(*devices));
	uint64_t *ns = calloc(n + 1, sizeof(*ns)), begin, load, all, linear, lines = 0;
	const struct policy_trace trace = {.looked = looked, .userdata = &lines};
	struct refusal_text text = {0};
	struct policy *p;
	unsigned int matched;

	if (n == 0 || !devices || !ns) {
		fprintf(stderr, "usage: policy-bench DIR DEVICES\n");
		return 2;
	}
	for (uint32_t i = 0; i < n; i++) {
		make(&devices[i], i);
	}
	begin = now_ns();
	if (policy_load(argv[1], &p, &text) != 0) {
		fprintf(stderr, "policy-bench: %s\n", text.sentence);
		return 1;
	}
	load = now_ns() - begin;
	matched = decide_all(p, devices, n, NULL, ns, &all);
	printf("{\"rules\": %zu, \"load\": %" PRIu64 ", \"all\": %" PRIu64 ", \"p50\": %" PRIu64
	       ", \"p99\": %" PRIu64 ", \"matched\": %u, ",
		p->n_rules, load, all, ns[n / 2], ns[n - 1 - n / 100], matched);
	if (decide_all(p, devices, n, &trace, ns, &linear) != matched) {
		fprintf(stderr, "policy-bench: the index decides otherwise\n");
		return 1;
	}
	printf("\"linear_all\": %" PRIu64 ", \"linear_p50\": %" PRIu64 ", \"lines\": %" PRIu64
	       "}\n",
		linear, ns[n / 2], lines);
	policy_destroy(p);
	free(devices);
	free(ns);
	return 0;
}
