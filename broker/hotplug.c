/* SPDX-License-Identifier: MIT
 *
 * Keeps what is known of the host's USB devices true.
 *
 * Everything here is level-triggered. A place is a syspath. An event says only "look there again":
 * it makes the place dirty, once, however many events there are. In the loop, dirty places are
 * looked at, a few per turn: the facts are read anew, and the difference to what was known is what
 * is told. So a lost, doubled or late event does no harm, a flood of them costs a look-up each, and
 * an overflow of the kernel's queue is mended by making everything dirty that is there or was.
 *
 * Keys are unique among what is known, and stay with a device while it is there, because leases
 * hang on them. Two devices at one place are not what USB means, but a device may pretend it (one
 * on each half of the connector), and usbip's virtual controller does it. The one that finds its
 * key taken gets its own half's spelling.
 */
#include "broker/hotplug.h"

#include <errno.h>
#include <search.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-device.h>
#include <time.h>

#include "base/list.h"
#include "base/log.h"
#include "broker/usb-facts.h"
#include "broker/usb-monitor.h"

#define LOOKS_PER_TURN 16
/* µs between two rescans, however often events overflow. */
#define RESCAN_INTERVAL 250000

struct place {
	char *syspath;
	struct list link;        // hotplug::places
	struct list dirty;       // hotplug::dirty
	struct usb_facts *facts; // NULL: nothing that was told is there
};

struct hotplug {
	const struct hotplug_ops *ops;
	void *userdata;
	struct usb_monitor *monitor;
	sd_event_source *looks;   /* enabled while something is dirty */
	sd_event_source *rescans; /* a timer, enabled while a rescan waits for its time */
	uint64_t last_rescan;     /* CLOCK_MONOTONIC µs */
	struct list places;       // place::link
	struct list dirty;        // place::dirty
	void *by_syspath;         /* tree of struct place */
	void *by_key;             /* tree of struct place that have facts */
	unsigned int n_places;
	bool full; /* a device was left out, and that has been said */
};

static int compare_syspaths(const void *a, const void *b)
{
	return strcmp(((const struct place *)a)->syspath, ((const struct place *)b)->syspath);
}

static int compare_keys(const void *a, const void *b)
{
	return strcmp(((const struct place *)a)->facts->key, ((const struct place *)b)->facts->key);
}

static struct place *find_place(const struct hotplug *h, const char *syspath)
{
	const struct place wanted = {.syspath = (char *)(uintptr_t)syspath};
	struct place *const *found = tfind(&wanted, &h->by_syspath, compare_syspaths);

	return found ? *found : NULL;
}

static struct place *find_key(const struct hotplug *h, const char *key)
{
	struct usb_facts facts = {.key = (char *)(uintptr_t)key};
	const struct place wanted = {.facts = &facts};
	struct place *const *found = tfind(&wanted, &h->by_key, compare_keys);

	return found ? *found : NULL;
}

static void place_destroy(struct hotplug *h, struct place *p)
{
	if (p->facts) {
		tdelete(p, &h->by_key, compare_keys);
		usb_facts_destroy(p->facts);
	}
	tdelete(p, &h->by_syspath, compare_syspaths);
	list_remove(&p->link);
	list_remove(&p->dirty);
	free(p->syspath);
	free(p);
	h->n_places--;
}

/* NULL if there are too many, or no memory: said once, until there is room again. */
static struct place *place_create(struct hotplug *h, const char *syspath)
{
	struct place *p = NULL;

	if (h->n_places < HOTPLUG_DEVICES_MAX) {
		p = calloc(1, sizeof(*p));
	}
	if (p) {
		list_init(&p->link);
		list_init(&p->dirty);
		p->syspath = strdup(syspath);
		if (!p->syspath || !tsearch(p, &h->by_syspath, compare_syspaths)) {
			free(p->syspath);
			free(p);
			p = NULL;
		}
	}
	if (!p) {
		if (!h->full) {
			log_warn("usb: no room for the device at %s, nor for those that follow",
				syspath);
		}
		h->full = true;
		return NULL;
	}
	list_append(&h->places, &p->link);
	h->n_places++;
	return p;
}

static void mark_dirty(struct hotplug *h, struct place *p)
{
	if (list_empty(&p->dirty)) {
		list_append(&h->dirty, &p->dirty);
	}
	/* Fails only for a loop that has ended. */
	(void)!sd_event_source_set_enabled(h->looks, SD_EVENT_ON);
}

void hotplug_poke(struct hotplug *h, const char *syspath)
{
	struct place *p = find_place(h, syspath);

	p = p ? p : place_create(h, syspath);
	if (p) {
		mark_dirty(h, p);
	}
}

static void tell_gone(struct hotplug *h, struct place *p)
{
	struct usb_facts *f = p->facts;

	tdelete(p, &h->by_key, compare_keys);
	p->facts = NULL;
	h->ops->gone(h->userdata, f);
	usb_facts_destroy(f);
}

static void look_at(struct hotplug *h, struct place *p);

/* Makes the key of f, new at p, unique. 0, or -EEXIST. */
static int settle_key(struct hotplug *h, struct usb_facts *f)
{
	struct place *holder = find_key(h, f->key);
	char *own;

	if (holder) {
		/* Gone, most likely: a device that moved to the connector's other half. While it
		 * is looked at it holds no key, so this ends. */
		look_at(h, holder);
		holder = find_key(h, f->key);
	}
	if (!holder) {
		return 0;
	}
	if (find_key(h, f->own_key)) {
		log_warn("%s: there are two, at %s and %s; the latter is left out", f->key,
			holder->syspath, f->syspath);
		return -EEXIST;
	}
	own = strdup(f->own_key);
	if (!own) {
		return -ENOMEM;
	}
	log_warn("%s: taken by the device at %s: that at %s is %s", f->key, holder->syspath,
		f->syspath, own);
	free(f->key);
	f->key = own;
	return 0;
}

/* f is taken. */
static void tell_appeared(struct hotplug *h, struct place *p, struct usb_facts *f)
{
	if (settle_key(h, f) < 0) {
		usb_facts_destroy(f);
		return;
	}
	p->facts = f;
	if (!tsearch(p, &h->by_key, compare_keys)) {
		p->facts = NULL;
		usb_facts_destroy(f);
		return;
	}
	h->ops->appeared(h->userdata, f);
}

/* The same instance as before; f is taken. */
static void tell_changed(struct hotplug *h, struct place *p, struct usb_facts *f)
{
	struct usb_facts *old = p->facts;
	char *key = f->key;

	/* A peer that came to be known later does not move a device that is known already. */
	f->key = old->key;
	old->key = key;
	if (strcmp(old->key, f->key) != 0) {
		free(old->key);
		old->key = strdup(f->key);
		if (!old->key) {
			/* Out of memory: back to what was. */
			old->key = f->key;
			f->key = NULL;
			usb_facts_destroy(f);
			return;
		}
	}
	if (usb_facts_equal(old, f)) {
		usb_facts_destroy(f);
		return;
	}
	p->facts = f;
	h->ops->changed(h->userdata, old, f);
	usb_facts_destroy(old);
}

/* Now, unless the last one was just now. */
static void want_rescan(struct hotplug *h)
{
	uint64_t when = h->last_rescan + RESCAN_INTERVAL;

	sd_event_source_set_time(h->rescans, when);
	(void)!sd_event_source_set_enabled(h->rescans, SD_EVENT_ONESHOT);
}

/* Reads what is there and tells the difference. p may be gone afterwards. */
static void look_at(struct hotplug *h, struct place *p)
{
	struct usb_facts *f = NULL;
	uint64_t instance;
	int r;

	list_remove(&p->dirty);
	/* First of all: what was known is gone, whatever comes after it. */
	if (p->facts &&
		(usb_facts_instance(p->syspath, &instance) < 0 || instance != p->facts->instance)) {
		tell_gone(h, p);
	}
	r = usb_facts_read(p->syspath, usb_monitor_has_udev(h->monitor), p->facts, &f);
	if (r == 0 && p->facts && f->instance == p->facts->instance) {
		tell_changed(h, p, f);
	} else if (r == 0) {
		if (p->facts) {
			tell_gone(h, p);
		}
		tell_appeared(h, p, f);
	} else if (r == -ENODEV && p->facts) {
		tell_gone(h, p);
	} else if (r != -ENODEV && r != -EAGAIN) {
		/* Told as it was before, or not at all; its next event is another chance. */
		log_warn("usb: can't read what is at %s: %s", p->syspath, strerror(-r));
	}
	/* Unless from within somebody wanted another look. */
	if (!p->facts && list_empty(&p->dirty)) {
		place_destroy(h, p);
		if (h->full) {
			h->full = false;
			want_rescan(h);
		}
	}
}

static int on_looks(sd_event_source *source, void *userdata)
{
	struct hotplug *h = userdata;

	for (unsigned int i = 0; i < LOOKS_PER_TURN && !list_empty(&h->dirty); i++) {
		look_at(h, list_first(&h->dirty, struct place, dirty));
	}
	return sd_event_source_set_enabled(
		source, list_empty(&h->dirty) ? SD_EVENT_OFF : SD_EVENT_ON);
}

/* Makes dirty what is there. Devices that udev has not seen to yet come with their event. */
static int mark_present(struct hotplug *h)
{
	_cleanup_(sd_device_enumerator_unrefp) sd_device_enumerator *e = NULL;
	int r = sd_device_enumerator_new(&e);

	r = r < 0 ? r : sd_device_enumerator_allow_uninitialized(e);
	r = r < 0 ? r : sd_device_enumerator_add_match_subsystem(e, "usb", true);
	r = r < 0 ? r : sd_device_enumerator_add_match_property(e, "DEVTYPE", "usb_device");
	for (sd_device *d = r < 0 ? NULL : sd_device_enumerator_get_device_first(e); d;
		d = sd_device_enumerator_get_device_next(e)) {
		const char *syspath;

		if (sd_device_get_syspath(d, &syspath) >= 0) {
			hotplug_poke(h, syspath);
		}
	}
	return r;
}

static int rescan(struct hotplug *h)
{
	struct place *p;

	sd_event_now(sd_event_source_get_event(h->rescans), CLOCK_MONOTONIC, &h->last_rescan);
	list_for_each (p, &h->places, link) {
		mark_dirty(h, p);
	}
	return mark_present(h);
}

static int on_rescan(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct hotplug *h = userdata;
	int r = rescan(h);

	if (r < 0) {
		log_warn("usb: can't list the devices: %s", strerror(-r));
		sd_event_source_set_time(source, h->last_rescan + RESCAN_INTERVAL);
		return sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
	}
	return 0;
}

/* One line for all overflows of an interval. */
static void on_lost(void *userdata)
{
	struct hotplug *h = userdata;
	int enabled = SD_EVENT_OFF;

	if (sd_event_source_get_enabled(h->rescans, &enabled) == 0) {
		log_warn("usb: events were lost: looking at every device again");
	}
	want_rescan(h);
}

static void on_event(void *userdata, const char *syspath)
{
	hotplug_poke(userdata, syspath);
}

static const struct usb_monitor_ops monitor_ops = {
	.event = on_event,
	.lost = on_lost,
};

int hotplug_create(
	sd_event *event, const struct hotplug_ops *ops, void *userdata, struct hotplug **out)
{
	struct hotplug *h = calloc(1, sizeof(*h));
	int r;

	if (!h) {
		return -ENOMEM;
	}
	h->ops = ops;
	h->userdata = userdata;
	list_init(&h->places);
	list_init(&h->dirty);
	r = sd_event_add_defer(event, &h->looks, on_looks, h);
	r = r < 0 ? r : sd_event_source_set_enabled(h->looks, SD_EVENT_OFF);
	r = r < 0 ? r
		  : sd_event_add_time(
			    event, &h->rescans, CLOCK_MONOTONIC, UINT64_MAX, 1, on_rescan, h);
	r = r < 0 ? r : sd_event_source_set_enabled(h->rescans, SD_EVENT_OFF);
	r = r < 0 ? r : usb_monitor_create(event, &monitor_ops, h, &h->monitor);
	if (r < 0) {
		hotplug_destroy(h);
		return r;
	}
	*out = h;
	return 0;
}

int hotplug_start(struct hotplug *h)
{
	int r = rescan(h);
	struct place *p;

	while (r >= 0 && (p = list_first(&h->dirty, struct place, dirty))) {
		look_at(h, p);
	}
	return r < 0 ? r : 0;
}

void hotplug_destroy(struct hotplug *h)
{
	struct place *p, *next;

	if (!h) {
		return;
	}
	list_for_each_safe (p, next, &h->places, link) {
		place_destroy(h, p);
	}
	sd_event_source_disable_unref(h->looks);
	sd_event_source_disable_unref(h->rescans);
	usb_monitor_destroy(h->monitor);
	free(h);
}

const char *hotplug_warning(const struct hotplug *h)
{
	if (h->full) {
		return "there are more USB devices than can be known; some are left out";
	}
	return usb_monitor_has_udev(h->monitor)
		       ? NULL
		       : "udev does not run: USB devices come from sysfs alone, and no udev "
			 "rule sends one to a VM";
}

const struct usb_facts *hotplug_find(const struct hotplug *h, const char *key)
{
	const struct place *p = find_key(h, key);

	return p ? p->facts : NULL;
}
