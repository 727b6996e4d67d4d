/* SPDX-License-Identifier: MIT
 * A worker for the tests of spawning: says on fd 3 what it was given, or waits.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

extern char **environ;

static unsigned int count_ignored(void)
{
	unsigned int n = 0;

	for (int sig = 1; sig < NSIG; sig++) {
		struct sigaction sa;

		n += sigaction(sig, NULL, &sa) == 0 && sa.sa_handler == SIG_IGN;
	}
	return n;
}

static unsigned int count_blocked(void)
{
	unsigned int n = 0;
	sigset_t now;

	sigprocmask(SIG_SETMASK, NULL, &now);
	for (int sig = 1; sig < NSIG; sig++) {
		n += sigismember(&now, sig) == 1;
	}
	return n;
}

/* Bit i: fd i is open; up to 63. */
static unsigned long long open_fds(void)
{
	unsigned long long mask = 0;

	for (int fd = 0; fd < 64; fd++) {
		if (fcntl(fd, F_GETFD) >= 0) {
			mask |= 1ULL << fd;
		}
	}
	return mask;
}

static int report(int argc, char **argv)
{
	char text[1024];
	int n = snprintf(text, sizeof(text),
		"pid=%d uid=%u gid=%u groups=%d ignored=%u blocked=%u env=%d fds=%llx sid=%d",
		getpid(), getuid(), getgid(), getgroups(0, NULL), count_ignored(), count_blocked(),
		environ[0] != NULL, open_fds(), getsid(0) == getpid());

	for (int i = 0; i < argc; i++) {
		n += snprintf(text + n, sizeof(text) - (size_t)n, " [%s]", argv[i]);
	}
	return write(3, text, (size_t)n) == n ? 0 : 1;
}

/* Writes to each of n fds its own number. */
static int number(int n)
{
	for (int fd = 3; fd < 3 + n; fd++) {
		char digit = (char)('0' + fd);

		if (write(fd, &digit, 1) != 1) {
			return 1;
		}
	}
	return 0;
}

int main(int argc, char **argv)
{
	if (argc > 1 && strcmp(argv[1], "wait") == 0) {
		/* Holds fd 3 open for as long as it lives. */
		for (;;) {
			pause();
		}
	}
	if (argc > 2 && strcmp(argv[1], "exit") == 0) {
		return atoi(argv[2]);
	}
	if (argc > 2 && strcmp(argv[1], "number") == 0) {
		return number(atoi(argv[2]));
	}
	return report(argc, argv);
}
