/* SPDX-License-Identifier: MIT
 *
 * For LD_AUDIT: has QEMU 7.2 take vhost-user devices where there is no KVM.
 *
 * QEMU 7.2 refuses them without KVM ("vhost initialization failed: requires kvm"), though they
 * work; 8.1 has dropped the check. The device models are modules that call into the program, so the
 * dynamic linker can be told to bind that one call to what is here: for as long as a device is
 * initialized, the program's two variables say that there is KVM.
 */
#include <dlfcn.h>
#include <link.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef int (*backend_init)(void *backend, void *device, unsigned int queues, void **error);

struct audit {
	struct link_map *program; // the first object
	backend_init init;
};

static struct audit audit;

/* What the dynamic linker looks for. */
unsigned int la_version(unsigned int version);
unsigned int la_objopen(struct link_map *map, Lmid_t id, uintptr_t *cookie);
uintptr_t la_symbind64(Elf64_Sym *symbol, unsigned int index, uintptr_t *from, uintptr_t *to,
	unsigned int *flags, const char *name);

static int init_as_with_kvm(void *backend, void *device, unsigned int queues, void **error)
{
	static const char *const names[] = {"kvm_allowed", "kvm_eventfds_allowed"};
	bool *variables[2], before[2];
	int r;

	for (int i = 0; i < 2; i++) {
		variables[i] = dlsym(audit.program, names[i]);
		if (!variables[i]) {
			abort(); /* another QEMU than this is for */
		}
		before[i] = *variables[i];
		*variables[i] = true;
	}
	r = audit.init(backend, device, queues, error);
	for (int i = 0; i < 2; i++) {
		*variables[i] = before[i];
	}
	return r;
}

__attribute__((visibility("default"))) unsigned int la_version(unsigned int version)
{
	return LAV_CURRENT;
}

__attribute__((visibility("default"))) unsigned int la_objopen(
	struct link_map *map, Lmid_t id, uintptr_t *cookie)
{
	if (!audit.program && id == LM_ID_BASE) {
		audit.program = map;
	}
	return LA_FLG_BINDTO | LA_FLG_BINDFROM;
}

__attribute__((visibility("default"))) uintptr_t la_symbind64(Elf64_Sym *symbol, unsigned int index,
	uintptr_t *from, uintptr_t *to, unsigned int *flags, const char *name)
{
	if (strcmp(name, "vhost_user_backend_dev_init") == 0) {
		audit.init = (backend_init)symbol->st_value;
		return (uintptr_t)init_as_with_kvm;
	}
	*flags |= LA_SYMB_NOPLTENTER | LA_SYMB_NOPLTEXIT;
	return symbol->st_value;
}
