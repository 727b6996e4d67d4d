/* SPDX-License-Identifier: MIT
 *
 * devbrokerd: options, the spawner's fork, configuration, the run directory, the loop. May die
 * until it has said READY=1, and not after.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/sandbox.h"
#include "broker/audit.h"
#include "broker/broker.h"
#include "broker/bus.h"
#include "broker/config.h"
#include "broker/spawner.h"
#include "broker/usb-host.h"
#include "build-config.h"

#define EXIT_USAGE 2
#define SYSTEM_BUS "unix:path=/run/dbus/system_bus_socket"

/* A range that no distribution's useradd, systemd or container manager hands out: see
 * https://systemd.io/UIDS-GIDS; above systemd-nspawn's, below 2^31. */
#define DEFAULT_UID_BASE  1879048192U
#define DEFAULT_UID_COUNT 1024U

struct options {
	const char *config_dir;
	const char *run_dir;
	const char *state_dir;
	const char *libexec_dir;
	const char *system_bus; /* address; NULL: as run_dir says; "none" */
	bool log_level_set;
};

static const char usage[] = "Usage: devbrokerd [OPTIONS]\n"
			    "Lends this host's devices to virtual machines; see devbrokerd(8).\n"
			    "\n"
			    "  --config DIR     configuration, default " DEVBROKER_CONFIG_DIR "\n"
			    "  --run-dir DIR    sockets, default " DEVBROKER_RUN_DIR "\n"
			    "  --libexec DIR    where the worker programs are, default\n"
			    "                   " DEVBROKER_LIBEXECDIR "\n"
			    "  --system-bus ADDRESS|none\n"
			    "                   D-Bus address; default: the system bus, if the\n"
			    "                   run directory is the default one\n"
			    "  --log-level L    error, warn, info or debug\n"
			    "  --version, --help\n";

/* -1: go on; otherwise the exit code. */
static int parse_options(int argc, char **argv, struct options *o)
{
	static const struct option known[] = {
		{"config", required_argument, NULL, 'c'},
		{"run-dir", required_argument, NULL, 'r'},
		{"state-dir", required_argument, NULL, 's'},
		{"libexec", required_argument, NULL, 'l'},
		{"system-bus", required_argument, NULL, 'b'},
		{"log-level", required_argument, NULL, 'g'},
		{"version", no_argument, NULL, 'V'},
		{"help", no_argument, NULL, 'h'},
		{0},
	};
	enum log_level level;
	int c;

	while ((c = getopt_long(argc, argv, "", known, NULL)) >= 0) {
		switch (c) {
		case 'c':
			o->config_dir = optarg;
			break;
		case 'r':
			o->run_dir = optarg;
			break;
		case 's':
			o->state_dir = optarg;
			break;
		case 'l':
			o->libexec_dir = optarg;
			break;
		case 'b':
			o->system_bus = optarg;
			break;
		case 'g':
			if (log_level_parse(optarg, &level) < 0) {
				fprintf(stderr, "devbrokerd: --log-level takes error, warn, info "
						"or debug\n");
				return EXIT_USAGE;
			}
			log_set_level(level);
			o->log_level_set = true;
			break;
		case 'V':
			printf("devbrokerd %s\n", DEVBROKER_VERSION);
			return 0;
		case 'h':
			fputs(usage, stdout);
			return 0;
		default:
			return EXIT_USAGE;
		}
	}
	if (optind < argc) {
		fprintf(stderr, "devbrokerd: there are no arguments, only options: %s\n",
			argv[optind]);
		return EXIT_USAGE;
	}
	return -1;
}

/* Makes the run directory and takes the lock that a second broker will miss. 0 with the fd that
 * holds the lock until it is closed; -errno; REFUSAL_BUSY. */
static int take_run_dir(const char *dir, int *lock_out, struct refusal_text *text)
{
	_cleanup_close_ int dir_fd = -1, fd = -1;
	char pid[16];
	ssize_t n;

	if (mkdir(dir, 0755) < 0 && errno != EEXIST) {
		return -errno;
	}
	dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir_fd < 0) {
		return -errno;
	}
	fd = openat(dir_fd, "lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
	if (fd < 0) {
		return -errno;
	}
	if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		if (errno != EWOULDBLOCK) {
			return -errno;
		}
		n = pread(fd, pid, sizeof(pid) - 1, 0);
		pid[n > 0 ? n : 0] = '\0';
		pid[strspn(pid, "0123456789")] = '\0';
		return refuse_with(text, REFUSAL_BUSY,
			"Stop it first, or give this one a --run-dir of its own.",
			"another devbrokerd (pid %s) serves %s", pid, dir);
	}
	snprintf(pid, sizeof(pid), "%d\n", (int)getpid());
	if (ftruncate(fd, 0) < 0 || pwrite(fd, pid, strlen(pid), 0) < 0) {
		return -errno;
	}
	*lock_out = steal_fd(&fd);
	return 0;
}

static int on_stop_signal(
	sd_event_source *source, const struct signalfd_siginfo *info, void *userdata)
{
	struct broker *b = userdata;

	if (b->stopping) {
		log_info("devbrokerd: still stopping: %u worker%s to end", b->n_processes,
			b->n_processes == 1 ? "" : "s");
		return 0;
	}
	log_info("devbrokerd: stopping; %u worker%s to end", b->n_processes,
		b->n_processes == 1 ? "" : "s");
	sd_notify(false, "STOPPING=1");
	broker_stop(b);
	return 0;
}

/* The next broker goes on with what is lent: a restart, an upgrade. */
static int on_leave_signal(
	sd_event_source *source, const struct signalfd_siginfo *info, void *userdata)
{
	struct broker *b = userdata;

	if (!b->stopping) {
		log_info("devbrokerd: leaving; what is lent waits for the next one");
		sd_notify(false, "STOPPING=1");
		b->leaving = true;
		sd_event_exit(b->event, 0);
	}
	return 0;
}

static int on_reload_signal(
	sd_event_source *source, const struct signalfd_siginfo *info, void *userdata)
{
	struct broker *b = userdata;
	struct refusal_text text = {0};
	int r = b->stopping ? 0 : broker_reload_policy(b, AUDIT_NOBODY, &text);

	if (r != 0) {
		log_error("devbrokerd: the rules stay as they were: %s",
			r < 0 ? strerror(-r) : text.sentence);
	}
	return 0;
}

static int watch_signals(struct broker *b)
{
	sigset_t set;
	int r;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	r = sd_event_add_signal(b->event, NULL, SIGTERM, on_stop_signal, b);
	if (r >= 0) {
		r = sd_event_add_signal(b->event, NULL, SIGINT, on_stop_signal, b);
	}
	if (r >= 0) {
		r = sd_event_add_signal(b->event, NULL, SIGUSR1, on_leave_signal, b);
	}
	return r < 0 ? r : sd_event_add_signal(b->event, NULL, SIGHUP, on_reload_signal, b);
}

static void choose_worker_uids(struct broker *b)
{
	if (geteuid() != 0) {
		if (b->config.worker_uids_set && b->config.worker_uid_count > 0) {
			log_warn("devbrokerd: not root: worker-uids= has no effect");
		}
		return;
	}
	b->uid_base = b->config.worker_uids_set ? b->config.worker_uid_base : DEFAULT_UID_BASE;
	b->uid_count = b->config.worker_uids_set ? b->config.worker_uid_count : DEFAULT_UID_COUNT;
}

/* Prints why it does not start: r is what failed (-errno or a refusal). Returns the exit code. */
static int die(int r, const struct refusal_text *text, const char *what)
{
	if (r < 0) {
		log_error("devbrokerd: %s: %s", what, strerror(-r));
		return EXIT_FAILURE;
	}
	log_error("devbrokerd: %s. %s", text->sentence, text->remedy);
	return refusal_exit_code(r);
}

static int start_spawner(const struct options *o, struct spawner **out)
{
	const char *missing = NULL;
	int r = spawner_create(o->libexec_dir, out, &missing);

	if (r < 0 && missing) {
		log_error("devbrokerd: can't use %s/%s: %s. Give --libexec the directory of the "
			  "worker programs; it and they must be executable for every user.",
			o->libexec_dir, missing, strerror(-r));
	} else if (r < 0) {
		log_error("devbrokerd: can't start the spawner: %s", strerror(-r));
	}
	return r;
}

/* There is one name on the bus: it belongs to the broker of the default run directory, which can be
 * served by one only. */
static int serve_system_bus(struct broker *b, const struct options *o)
{
	const char *given = getenv("DBUS_SYSTEM_BUS_ADDRESS");
	const char *address = o->system_bus;

	assert(o->run_dir);
	if (!address && strcmp(o->run_dir, DEVBROKER_RUN_DIR) == 0) {
		address = given && given[0] ? given : SYSTEM_BUS;
	}
	return !address || strcmp(address, "none") == 0 ? 0 : bus_serve_system(b->bus, address);
}

/* Everything between the fork and READY=1. Returns 0 or the exit code. */
static int set_up(struct broker *b, const struct options *o, struct config *config, int *lock_out)
{
	struct refusal_text text = {0};
	struct spawner *spawner = b->spawner;
	struct spawner_settings settings;
	int r;

	r = broker_init(b, config, spawner);
	if (r < 0) {
		return die(r, &text, "can't start");
	}
	b->config_dir = o->config_dir;
	b->run_dir = o->run_dir;
	b->state_dir = o->state_dir;
	choose_worker_uids(b);
	settings = (struct spawner_settings){
		.uid_base = b->uid_base,
		.uid_count = b->uid_count,
		.namespaces = !!(b->config.sandbox_stages & SANDBOX_NAMESPACES),
	};
	r = spawner_attach(spawner, b->event);
	if (r == 0) {
		r = spawner_configure(spawner, &settings);
	}
	if (r == 0) {
		r = watch_signals(b);
	}
	if (r < 0) {
		return die(r, &text, "can't start");
	}
	r = take_run_dir(o->run_dir, lock_out, &text);
	if (r != 0) {
		return die(r, &text, o->run_dir);
	}
	r = broker_load(b, &text);
	if (r != 0) {
		return die(r, &text, "can't use the configuration");
	}
	r = usb_host_start(b);
	if (r < 0) {
		return die(r, &text, "can't look for USB devices");
	}
	r = bus_listen(b, &b->bus);
	if (r == 0) {
		r = serve_system_bus(b, o);
	}
	return r == 0 ? 0 : die(r, &text, "can't listen for clients");
}

int main(int argc, char **argv)
{
	struct options o = {
		.config_dir = DEVBROKER_CONFIG_DIR,
		.run_dir = DEVBROKER_RUN_DIR,
		.state_dir = DEVBROKER_STATE_DIR,
		.libexec_dir = DEVBROKER_LIBEXECDIR,
	};
	_cleanup_close_ int lock_fd = -1;
	struct refusal_text text = {0};
	struct broker b = {0};
	struct config config;
	int r = parse_options(argc, argv, &o);

	if (r >= 0) {
		return r;
	}
	/* Before anything is read. */
	if (start_spawner(&o, &b.spawner) < 0) {
		return EXIT_FAILURE;
	}
	r = config_load(o.config_dir, &config, &text);
	if (r != 0) {
		spawner_destroy(b.spawner);
		return die(r, &text, o.config_dir);
	}
	if (!o.log_level_set) {
		log_set_level(config.log_level);
	}
	r = set_up(&b, &o, &config, &lock_fd);
	if (r == 0) {
		log_info("devbrokerd %s: ready; %u VMs, %u devices, sandbox %s", DEVBROKER_VERSION,
			b.n_vms, b.n_devices, b.config.sandbox);
		sd_notify(false, "READY=1");
		r = sd_event_loop(b.event);
		if (r < 0) {
			/* Nothing can be waited for; workers end when their sockets close. */
			return die(r, &text, "the event loop failed");
		}
	} else if (b.n_processes > 0) {
		/* What an earlier one lent waits for one that starts. */
		b.leaving = true;
	} else if (b.event) {
		/* What configuration lends is decided, and no more than that yet. */
		broker_stop(&b);
	}
	bus_server_destroy(b.bus);
	b.bus = NULL;
	if (b.leaving) {
		/* Workers see their sockets close, as they would if it were killed. */
		_exit(r);
	}
	broker_finish(&b);
	return r;
}
