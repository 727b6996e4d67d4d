/* SPDX-License-Identifier: MIT
 *
 * Rules from files. The whole policy is read or none of it: a broken one leaves the one before it
 * in force.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/fd.h"
#include "base/log.h"
#include "broker/config-file.h"
#include "broker/policy-index.h"
#include "broker/policy.h"

#define FILES_MAX   4096
#define MATCHES_MAX 256 /* lines in one rule */
#define SPACES      " \t"

static const char *const action_names[] = {
	[POLICY_HOLD] = "hold",
	[POLICY_ATTACH] = "attach",
	[POLICY_OFFER] = "offer",
	[POLICY_DENY] = "deny",
	[POLICY_IGNORE] = "ignore",
};
static_assert(ARRAY_SIZE(action_names) == POLICY_ACTION_COUNT_, "one per action");

const char *policy_action_name(enum policy_action action)
{
	return action_names[action];
}

struct loader {
	struct policy *policy;
	struct policy_rule *rule; // may be NULL: before the first section of a file
};

static void rule_destroy(struct policy_rule *rule)
{
	list_remove(&rule->link);
	for (size_t i = 0; i < rule->n_matches; i++) {
		policy_match_finish(&rule->matches[i]);
	}
	for (size_t i = 0; i < rule->n_vms; i++) {
		free(rule->vms[i]);
	}
	for (size_t i = 0; i < rule->n_follow; i++) {
		policy_match_finish(&rule->follow[i]);
	}
	free(rule->matches);
	free(rule->name);
	free(rule->where);
	free(rule);
}

void policy_destroy(struct policy *p)
{
	struct policy_rule *rule, *next;

	if (!p) {
		return;
	}
	list_for_each_safe (rule, next, &p->rules, link) {
		rule_destroy(rule);
	}
	policy_index_destroy(p->index);
	free(p);
}

static bool rule_name_ok(const char *name)
{
	size_t n = strlen(name);

	for (size_t i = 0; i < n; i++) {
		if ((unsigned char)name[i] <= 0x20 || name[i] == 0x7f || name[i] == ']') {
			return false;
		}
	}
	return n > 0 && n <= POLICY_RULE_NAME_MAX;
}

static int refuse_value(
	const struct config_place *place, const char *key, const char *value, const char *wanted)
{
	char shown[120];

	return config_refuse(place, "%s=%s is not %s", key,
		log_escape(value, strlen(value), shown, sizeof(shown)), wanted);
}

static int begin(void *target, const char *name, const struct config_place *place)
{
	struct loader *l = target;
	struct policy_rule *rule;

	l->rule = NULL;
	if (!name) {
		return 0;
	}
	if (!rule_name_ok(name)) {
		return config_refuse(place, "a rule needs a name without blanks: [rule NAME]");
	}
	if (l->policy->n_rules == POLICY_RULES_MAX) {
		return config_refuse(place, "there are more than %d rules", POLICY_RULES_MAX);
	}
	rule = calloc(1, sizeof(*rule));
	if (!rule) {
		return -ENOMEM;
	}
	list_append(&l->policy->rules, &rule->link);
	l->policy->n_rules++;
	l->rule = rule;
	rule->name = strdup(name);
	if (!rule->name || asprintf(&rule->where, "%s:%u", place->shown, place->line) < 0) {
		return -ENOMEM;
	}
	return 0;
}

static int set_match(void *target, const char *value, const struct config_place *place)
{
	struct loader *l = target;
	struct policy_rule *rule = l->rule;
	struct policy_match *more;
	int r;

	if (rule->n_matches == MATCHES_MAX) {
		return config_refuse(place, "there are more than %d Match= lines", MATCHES_MAX);
	}
	more = realloc(rule->matches, (rule->n_matches + 1) * sizeof(*more));
	if (!more) {
		return -ENOMEM;
	}
	rule->matches = more;
	r = policy_match_parse(value, place, &more[rule->n_matches]);
	if (r == 0) {
		l->policy->is_volatile |= policy_match_is_volatile(&more[rule->n_matches]);
		rule->n_matches++;
	}
	return r;
}

/* The names behind the action. */
static int set_vms(struct policy_rule *rule, const char *value, const char *names,
	const struct config_place *place)
{
	struct config_place here = *place;

	for (names += strspn(names, SPACES); *names; names += strspn(names, SPACES)) {
		size_t n = strcspn(names, SPACES);
		char *name;

		here.column = place->column + (unsigned int)(names - value);
		if (rule->n_vms == POLICY_VMS_MAX) {
			return config_refuse(&here, "there are more than %d VMs", POLICY_VMS_MAX);
		}
		name = strndup(names, n);
		if (!name) {
			return -ENOMEM;
		}
		rule->vms[rule->n_vms++] = name;
		if (!config_name_ok(name)) {
			return refuse_value(&here, "Action", name, "the name of a VM");
		}
		names += n;
	}
	return 0;
}

static int set_action(void *target, const char *value, const struct config_place *place)
{
	struct policy_rule *rule = ((struct loader *)target)->rule;
	size_t n = strcspn(value, SPACES);
	int r;

	for (size_t i = 0; i < ARRAY_SIZE(action_names); i++) {
		if (strlen(action_names[i]) != n || strncmp(action_names[i], value, n) != 0) {
			continue;
		}
		rule->action = (enum policy_action)i;
		r = set_vms(rule, value, value + n, place);
		if (r != 0) {
			return r;
		}
		if (rule->action == POLICY_ATTACH      ? rule->n_vms != 1
			: rule->action == POLICY_OFFER ? rule->n_vms == 0
						       : rule->n_vms > 0) {
			break;
		}
		return 0;
	}
	return refuse_value(place, "Action", value, "attach VM, offer VM…, hold, deny or ignore");
}

static int set_host_drivers(void *target, const char *value, const struct config_place *place)
{
	struct policy_rule *rule = ((struct loader *)target)->rule;

	rule->options.keep_drivers_off = strcmp(value, "away") == 0;
	return rule->options.keep_drivers_off || strcmp(value, "return") == 0
		       ? 0
		       : refuse_value(place, "HostDrivers", value, "return or away");
}

static int set_flag(
	bool *field, const char *key, const char *value, const struct config_place *place)
{
	return parse_bool(value, field) == 0 ? 0 : refuse_value(place, key, value, "yes or no");
}

static int set_last_input(void *target, const char *value, const struct config_place *place)
{
	struct policy_rule *rule = ((struct loader *)target)->rule;

	return set_flag(&rule->options.last_input, "LastInput", value, place);
}

static int set_reset(void *target, const char *value, const struct config_place *place)
{
	struct policy_rule *rule = ((struct loader *)target)->rule;
	bool reset = true;
	int r = set_flag(&reset, "Reset", value, place);

	rule->options.no_reset = !reset;
	return r;
}

static int set_read_only(void *target, const char *value, const struct config_place *place)
{
	struct policy_rule *rule = ((struct loader *)target)->rule;

	return set_flag(&rule->options.read_only, "ReadOnly", value, place);
}

static int set_allow_firmware(void *target, const char *value, const struct config_place *place)
{
	struct policy_rule *rule = ((struct loader *)target)->rule;

	return set_flag(&rule->options.allow_firmware, "AllowFirmware", value, place);
}

static int set_bytes(void *target, const char *value, const struct config_place *place)
{
	struct policy_rule *rule = ((struct loader *)target)->rule;
	char wanted[64];

	if (parse_bytes(value, QUOTA_BYTES_MIN, QUOTA_BYTES_MAX, &rule->options.bytes_in_flight) ==
		0) {
		return 0;
	}
	snprintf(wanted, sizeof(wanted), "a size from %dM to %dM", QUOTA_BYTES_MIN >> 20,
		QUOTA_BYTES_MAX >> 20);
	return refuse_value(place, "BytesInFlight", value, wanted);
}

static int set_transfers(void *target, const char *value, const struct config_place *place)
{
	struct policy_rule *rule = ((struct loader *)target)->rule;
	char wanted[64];
	uint64_t n;

	if (parse_u64(value, 1, QUOTA_TRANSFERS_MAX, &n) == 0) {
		rule->options.transfers_in_flight = (uint32_t)n;
		return 0;
	}
	snprintf(wanted, sizeof(wanted), "a number from 1 to %d", QUOTA_TRANSFERS_MAX);
	return refuse_value(place, "TransfersInFlight", value, wanted);
}

/* Calls take for each word of value; here is where it stands. */
static int each_word(const char *value, struct policy_rule *rule,
	int (*take)(struct policy_rule *rule, const char *word, const struct config_place *here),
	const struct config_place *place)
{
	_cleanup_free_ char *copy = strdup(value);
	struct config_place here = *place;
	char *save = NULL;
	int r = 0;

	if (!copy) {
		return -ENOMEM;
	}
	for (char *word = strtok_r(copy, SPACES, &save); word && r == 0;
		word = strtok_r(NULL, SPACES, &save)) {
		here.column = place->column + (unsigned int)(word - copy);
		r = take(rule, word, &here);
	}
	return r;
}

static int set_interfaces(void *target, const char *value, const struct config_place *place)
{
	struct policy_rule *rule = ((struct loader *)target)->rule;

	return lease_interfaces_parse(value, &rule->options.interfaces) == 0
		       ? 0
		       : refuse_value(place, "Interfaces", value,
				 "numbers from 0 to 31 with commas between them (as in 0,2)");
}

static int add_follow(struct policy_rule *rule, const char *word, const struct config_place *here)
{
	char text[32];
	uint64_t n;
	int r;

	if (rule->follow_seconds == 0) {
		if (parse_u64(word, 1, POLICY_FOLLOW_SECONDS_MAX, &n) < 0) {
			return refuse_value(here, "Follow", word,
				"a number of seconds from 1 to 3600, before the ids");
		}
		rule->follow_seconds = (unsigned int)n;
		return 0;
	}
	if (rule->n_follow == POLICY_FOLLOW_MAX) {
		return config_refuse(here, "there are more than %d ids", POLICY_FOLLOW_MAX);
	}
	if (strchr(word, '"') ||
		(size_t)snprintf(text, sizeof(text), "id=%s", word) >= sizeof(text)) {
		return refuse_value(here, "Follow", word, "VID:PID in hexadecimal");
	}
	r = policy_match_parse(text, here, &rule->follow[rule->n_follow]);
	rule->n_follow += r == 0;
	return r;
}

static int set_follow(void *target, const char *value, const struct config_place *place)
{
	struct policy_rule *rule = ((struct loader *)target)->rule;
	int r = each_word(value, rule, add_follow, place);

	return r == 0 && rule->n_follow == 0
		       ? refuse_value(place, "Follow", value, "SECONDS VID:PID…")
		       : r;
}

static const struct config_key keys[] = {
	{"rule", "Match", set_match, CONFIG_REPEATS},
	{"rule", "Action", set_action, CONFIG_REQUIRED},
	{"rule", "HostDrivers", set_host_drivers, CONFIG_OPTIONAL},
	{"rule", "LastInput", set_last_input, CONFIG_OPTIONAL},
	{"rule", "Reset", set_reset, CONFIG_OPTIONAL},
	{"rule", "ReadOnly", set_read_only, CONFIG_OPTIONAL},
	{"rule", "AllowFirmware", set_allow_firmware, CONFIG_OPTIONAL},
	{"rule", "Interfaces", set_interfaces, CONFIG_OPTIONAL},
	{"rule", "BytesInFlight", set_bytes, CONFIG_OPTIONAL},
	{"rule", "TransfersInFlight", set_transfers, CONFIG_OPTIONAL},
	{"rule", "Follow", set_follow, CONFIG_OPTIONAL},
};

static int load_file(void *userdata, int dir_fd, const char *file, const char *shown,
	const char *name, struct refusal_text *text)
{
	static const struct config_sections sections = {.begin = begin};
	struct loader l = {.policy = userdata};

	return config_file_read_sections(
		dir_fd, file, shown, keys, ARRAY_SIZE(keys), &sections, &l, text);
}

int policy_load(const char *dir, struct policy **out, struct refusal_text *text)
{
	_cleanup_close_ int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct policy *p = calloc(1, sizeof(*p));
	int r = 0;

	if (!p) {
		return -ENOMEM;
	}
	list_init(&p->rules);
	if (fd >= 0) {
		r = config_folder_read(fd, "policy.d", FILES_MAX, load_file, p, text);
	} else if (errno != ENOENT) {
		r = -errno;
	}
	if (r == 0) {
		r = policy_index_create(p, &p->index);
	}
	if (r != 0) {
		policy_destroy(p);
		return r;
	}
	*out = p;
	return 0;
}
