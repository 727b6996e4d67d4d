/* SPDX-License-Identifier: MIT
 * What the kernel says a process used. Its numbers, none of the process's own words.
 */
#pragma once

#include <stdint.h>
#include <sys/types.h>

#include "base/cleanup.h"

/* CPU time of all of its threads, ns. 0 or -errno. */
int gpu_measure_cpu(pid_t pid, uint64_t *ns_out) _must_check_;
/* How long its threads were ready to run while others ran, ns, all together; those that have ended
 * are not in it any more. 0 or -errno; -EOPNOTSUPP: this kernel doesn't count it. */
int gpu_measure_delay(pid_t pid, uint64_t *ns_out) _must_check_;
/* Memory that it has in RAM, bytes. 0 or -errno. */
int gpu_measure_rss(pid_t pid, uint64_t *bytes_out) _must_check_;
/* CPUs that this process may use. */
uint32_t gpu_measure_cpus(void);
