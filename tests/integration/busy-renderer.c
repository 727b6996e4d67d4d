/* SPDX-License-Identifier: MIT
 * devbroker-gpu whose renderer means harm: it looks at nothing that it was given, and takes all the
 * CPU that there is. Its front is the real one.
 */
#include <libgen.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	char self[PATH_MAX] = "", real[PATH_MAX + 64];

	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--renderer") == 0) {
			/* But no harm to the machine, where the test fails. */
			prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
			for (volatile unsigned int n = 0;; n++) {
			}
		}
	}
	if (readlink("/proc/self/exe", self, sizeof(self) - 1) < 0) {
		return 1;
	}
	snprintf(real, sizeof(real), "%s/../../gpu/devbroker-gpu", dirname(self));
	execv(real, argv);
	return 1;
}
