/* SPDX-License-Identifier: MIT */
#include "base/sandbox.h"
