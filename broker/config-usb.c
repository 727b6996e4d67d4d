/* SPDX-License-Identifier: MIT
 *
 * The [usb] section of devbroker.conf.
 */
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "broker/config-internal.h"

#define MIB (UINT64_C(1) << 20)

void config_usb_default(struct config_usb *out)
{
	*out = (struct config_usb){
		.host_drivers_return = true,
		.usbfs_memory = 2 * MIB,
	};
}

void config_usb_finish(struct config_usb *c)
{
	free(c->quarantine);
	c->quarantine = NULL;
}

static struct config_usb *usb_of(void *target)
{
	return &((struct config_target *)target)->config->usb;
}

static int refuse_value(
	const struct config_place *place, const char *key, const char *value, const char *wanted)
{
	char shown[200];

	return config_refuse(place, "%s=%s is not %s", key,
		log_escape(value, strlen(value), shown, sizeof(shown)), wanted);
}

/* Words of what names of devices in sysfs are made of, separated by single blanks. */
static bool controllers_ok(const char *value)
{
	bool word = false;

	for (const char *p = value; *p; p++) {
		if (*p == ' ' && !word) {
			return false;
		}
		word = *p != ' ';
		if (word && !isalnum((unsigned char)*p) && !strchr("._:-", *p)) {
			return false;
		}
	}
	return word;
}

int config_usb_set_quarantine(void *target, const char *value, const struct config_place *place)
{
	struct config_usb *c = usb_of(target);

	if (!controllers_ok(value)) {
		return refuse_value(place, "quarantine", value,
			"all, none or host controllers separated by blanks (as in 0000:00:14.0)");
	}
	if (strcmp(value, "none") == 0) {
		return 0;
	}
	c->quarantine = strdup(value);
	return c->quarantine ? 0 : -ENOMEM;
}

int config_usb_set_host_drivers(void *target, const char *value, const struct config_place *place)
{
	if (strcmp(value, "return") != 0 && strcmp(value, "away") != 0) {
		return refuse_value(place, "host-drivers", value, "return or away");
	}
	usb_of(target)->host_drivers_return = strcmp(value, "return") == 0;
	return 0;
}

static int set_memory(
	uint64_t *field, const char *key, const char *value, const struct config_place *place)
{
	return parse_bytes(value, USBFS_MEMORY_MIN, USBFS_MEMORY_MAX, field) == 0
		       ? 0
		       : refuse_value(place, key, value, "a size from 256K to 256M");
}

int config_usb_set_memory(void *target, const char *value, const struct config_place *place)
{
	return set_memory(&usb_of(target)->usbfs_memory, "usbfs-memory", value, place);
}

int config_usb_set_memory_all(void *target, const char *value, const struct config_place *place)
{
	return set_memory(&usb_of(target)->usbfs_memory_all, "usbfs-memory-all", value, place);
}

int config_usb_set_remote(void *target, const char *value, const struct config_place *place)
{
	return parse_bool(value, &usb_of(target)->allow_remote) == 0
		       ? 0
		       : refuse_value(place, "allow-remote", value, "yes or no");
}
