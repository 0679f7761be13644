# What a contributor types. `make help` lists it. A second call of anything is quick: stamps lie in .venv.
.DELETE_ON_ERROR:
.SUFFIXES:

# The system's own Python: one from a version manager in /root cannot be reached by the plain users of the tests.
PYTHON ?= $(firstword $(wildcard /usr/bin/python3) python3)
VENV := .venv
BIN := $(VENV)/bin
# 0 runs the tests in one process, as a debugger wants it.
WORKERS ?= $(shell nproc)
PYTEST := LAYERRUN_MUST_WORK=1 $(BIN)/python -m pytest

NEED_BUILD := gcc libc6-dev libcap-dev libssl-dev make python3-dev python3-venv
NEED_RUN := uidmap
NEED_TEST := acl attr buildah clang dbus-daemon docker-registry dosfstools e2fsprogs erofs-utils fuse-overlayfs git \
	groff-base iproute2 libarchive-tools libcap2-bin libclang-rt-dev libglib2.0-bin mmdebstrap nftables openssl passt \
	podman postgresql procps redis-server skopeo squashfs-tools strace tmux umoci util-linux x11-apps x11-utils \
	xauth xdg-dbus-proxy xvfb zstd
# Those marked long boot a kernel, which they fetch themselves, run a browser, and servers for windows and sound.
NEED_LONG := chromium kmod pulseaudio pulseaudio-utils qemu-system-x86 wayland-utils weston zenity
NEED_BENCH := ostree podman runc umoci

.PHONY: help
help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1	\2/p' $(MAKEFILE_LIST) | expand -t 16

# Install what is missing by apt as root; say what is missing otherwise.
need = @tools/need $(1)

.PHONY: venv
venv: $(VENV)/.stamp-deps ## .venv with everything but layerrun itself

$(VENV)/.stamp-deps: pyproject.toml Makefile
	$(call need,$(NEED_BUILD))
	[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -qq -U "pip>=25.1"
	$(BIN)/pip install -qq -U "setuptools>=77" "cffi>=1.17"
	$(BIN)/pip install -qq --group lint --group test --group bench $$($(BIN)/python tools/requirements.py)
	@touch $@

.PHONY: build
build: $(VENV)/.stamp-build ## layerrun itself in .venv (editable), the C core compiled

$(VENV)/.stamp-build: $(VENV)/.stamp-deps setup.py layerrun/native/build.py $(wildcard csrc/*.c csrc/*.h)
	$(call need,$(NEED_BUILD) $(NEED_RUN))
	# compat: a line in a .pth file; the default, a finder in Python, costs every start 13 ms.
	$(BIN)/pip install -qq --no-build-isolation --no-deps --config-settings editable_mode=compat -e .
	@touch $@

.PHONY: demo
demo: build ## show the main job on real input
	$(call need,$(NEED_TEST))
	PATH="$(CURDIR)/$(BIN):$$PATH" demo/run

.PHONY: test
test: build ## everything that takes less than twenty minutes; nothing may be skipped for want of an ability
	$(call need,$(NEED_TEST))
	$(PYTEST) -m "not long" -n $(WORKERS) --no-loadscope-reorder $(ARGS)

.PHONY: test-long
test-long: build ## the tests marked long as well
	$(call need,$(NEED_TEST) $(NEED_LONG))
	$(PYTEST) $(ARGS)

.PHONY: escape
escape: build ## the attacks on isolation alone; a table of what was seen, also in tests/escape/report.txt
	$(call need,$(NEED_TEST))
	ESCAPE_TABLE=tests/escape/report.txt $(PYTEST) tests/escape -q -m "not long" $(ARGS)

.PHONY: bench
bench: build ## benchmarks beside bubblewrap, runc, podman and rm -rf
	$(call need,$(NEED_TEST) $(NEED_BENCH))
	$(BIN)/python benchmarks/launch.py $(ARGS)
	$(BIN)/python benchmarks/many.py $(ARGS)
	$(BIN)/python benchmarks/reset.py $(ARGS)
	$(BIN)/python benchmarks/diff.py $(ARGS)
	$(BIN)/python benchmarks/snapshots.py $(ARGS)
	$(BIN)/python benchmarks/commit.py
	$(BIN)/python benchmarks/imports.py $(ARGS)
	$(BIN)/python benchmarks/delta.py
	$(BIN)/python benchmarks/api.py $(ARGS)
	$(BIN)/python benchmarks/registry.py

.PHONY: lint
lint: venv ## ruff, mypy --strict, clang-format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run -Werror csrc/*.c csrc/*.h benchmarks/*.c tests/*/*.c

.PHONY: format
format: venv ## let ruff and clang-format do it
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i csrc/*.c csrc/*.h benchmarks/*.c tests/*/*.c

.PHONY: man
man: build ## the man pages in docs/man, from the commands' own help
	$(BIN)/python tools/man.py docs/man

.PHONY: clean
clean: ## remove what was built, not the caches of the tests in /var/tmp
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
	rm -f layerrun/native/_lr.c layerrun/native/*.so
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
