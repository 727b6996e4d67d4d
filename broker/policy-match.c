/* SPDX-License-Identifier: MIT
 *
 * Lines of words: cut apart here, each with its column; what a word means is in policy-words.c.
 */
#include "broker/policy-match.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "broker/policy-match-internal.h"

/* The end of the word at text: a blank outside of quotes. NULL if a quote is not closed. */
static const char *word_end(const char *text)
{
	bool quoted = false;

	for (; *text && (quoted || (*text != ' ' && *text != '\t')); text++) {
		quoted ^= *text == '"';
	}
	return quoted ? NULL : text;
}

/* Without its quotes, in place. */
static void unquote(char *text)
{
	char *to = text;

	for (const char *p = text; *p; p++) {
		if (*p != '"') {
			*to++ = *p;
		}
	}
	*to = '\0';
}

/* Takes the comparison at text. Returns what follows it, NULL if there is none. */
static char *take_comparison(char *text, enum policy_comparison *out)
{
	static const struct {
		const char *text;
		enum policy_comparison comparison;
	} all[] = {{"<=", LESS_OR_IS}, {">=", MORE_OR_IS}, {"<", LESS}, {">", MORE}, {"=", IS}};

	for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
		size_t n = strlen(all[i].text);

		if (strncmp(text, all[i].text, n) == 0) {
			*out = all[i].comparison;
			*text = '\0';
			return text + n;
		}
	}
	return NULL;
}

/* text: one word, a copy that may be cut. */
static int parse_word(struct policy_word *w, char *text, const struct config_place *place)
{
	const char *wanted;
	char shown[80];
	char *value;

	w->written = strdup(text);
	if (!w->written) {
		return -ENOMEM;
	}
	w->negated = *text == '!';
	text += w->negated;
	value = take_comparison(text + strcspn(text, "<>="), &w->comparison);
	if (!value) {
		return config_refuse(place, "\"%s\" is not key=value",
			log_escape(text, strlen(text), shown, sizeof(shown)));
	}
	w->key = policy_find_key(w, text, place);
	if (!w->key) {
		return REFUSAL_CONFIG;
	}
	if (w->comparison != IS && !w->key->compares) {
		return config_refuse(place, "%s takes only =", text);
	}
	unquote(value);
	wanted = w->key->parse(w, value);
	if (wanted == policy_no_memory) {
		return -ENOMEM;
	}
	return wanted ? config_refuse(place, "%s=%s is not %s", text,
				log_escape(value, strlen(value), shown, sizeof(shown)), wanted)
		      : 0;
}

static int parse_next(
	struct policy_match *m, const char *word, const char *end, const struct config_place *place)
{
	struct policy_word *more;
	_cleanup_free_ char *text = strndup(word, (size_t)(end - word));

	if (m->n_words == POLICY_WORDS_MAX) {
		return config_refuse(place, "there are more than %d words", POLICY_WORDS_MAX);
	}
	more = realloc(m->words, (m->n_words + 1) * sizeof(*more));
	if (!more || !text) {
		m->words = more ? more : m->words;
		return -ENOMEM;
	}
	m->words = more;
	m->words[m->n_words] = (struct policy_word){0};
	return parse_word(&m->words[m->n_words++], text, place);
}

int policy_match_parse(
	const char *value, const struct config_place *place, struct policy_match *out)
{
	struct policy_match m = {0};
	const char *word = value;
	int r = 0;

	for (word += strspn(word, " \t"); r == 0 && *word; word += strspn(word, " \t")) {
		struct config_place here = *place;
		const char *end = word_end(word);

		here.column += (unsigned int)(word - value);
		if (!end) {
			r = config_refuse(&here, "a quote is not closed");
			break;
		}
		r = parse_next(&m, word, end, &here);
		word = end;
	}
	if (r != 0) {
		policy_match_finish(&m);
		return r;
	}
	*out = m;
	return 0;
}

void policy_match_finish(struct policy_match *m)
{
	for (size_t i = 0; i < m->n_words; i++) {
		free(m->words[i].written);
		free(m->words[i].name);
		free(m->words[i].pattern);
	}
	free(m->words);
	*m = (struct policy_match){0};
}

const char *policy_match_fails(const struct policy_match *m, const struct usb_facts *f,
	const struct policy_context *context)
{
	for (size_t i = 0; i < m->n_words; i++) {
		const struct policy_word *w = &m->words[i];

		if (w->key->holds(w, f, context) == w->negated) {
			return w->written;
		}
	}
	return NULL;
}

void policy_match_selector(const struct policy_match *m, struct policy_selector *out)
{
	*out = (struct policy_selector){.kind = POLICY_SELECTS_NOTHING, .text = ""};
	for (size_t i = 0; i < m->n_words; i++) {
		const struct policy_word *w = &m->words[i];
		struct policy_selector s = {.text = ""};

		if (w->negated || !w->key->selects) {
			continue;
		}
		w->key->selects(w, &s);
		/* The kinds are in the order of how few devices they mean. */
		if (s.kind != POLICY_SELECTS_NOTHING &&
			(out->kind == POLICY_SELECTS_NOTHING || s.kind < out->kind)) {
			*out = s;
		}
	}
}

bool policy_match_is_volatile(const struct policy_match *m)
{
	for (size_t i = 0; i < m->n_words; i++) {
		if (m->words[i].key->is_volatile) {
			return true;
		}
	}
	return false;
}
