# Each target does its own set-up: Debian's or Ubuntu's packages when some are missing, a virtual environment in .venv,
# and avlab with its dependencies in it. A fresh machine needs git, make and python3. Another Python: make PYTHON=...

WINDOWS := $(filter Windows_NT,$(OS))
PYTHON ?= $(if $(WINDOWS),python,python3)
BIN := $(if $(WINDOWS),.venv/Scripts,.venv/bin)
APT := $(shell command -v apt-get 2>/dev/null)

# Debian's own Python comes without venv and headers; one from elsewhere (pyenv, conda, python.org) has both.
DEBIAN_PYTHON := $(filter /usr/bin/% /bin/%,$(shell command -v $(PYTHON) 2>/dev/null))

# What to install from the system, target by target; tests/tools.py says which test needs what.
SYSTEM_check := $(if $(DEBIAN_PYTHON),$(notdir $(PYTHON))-venv)
# A compiler and PortAudio for PyAudio; the rest is what OpenCV's and Qt's wheels expect to find for their window.
SYSTEM_lab := $(SYSTEM_check) $(if $(DEBIAN_PYTHON),$(notdir $(PYTHON))-dev) gcc libc6-dev portaudio19-dev \
    libgl1 libglib2.0-0 libsm6 libxext6
SYSTEM_docs := $(SYSTEM_lab)
SYSTEM_test := $(SYSTEM_lab) chromium ffmpeg gstreamer1.0-tools gstreamer1.0-plugins-base gstreamer1.0-plugins-good \
    gstreamer1.0-plugins-bad \
    gir1.2-gst-rtsp-server-1.0 python3-gi pulseaudio pulseaudio-utils libasound2-plugins xvfb xdotool tshark mpv openssl \
    iproute2
SYSTEM_bench := $(SYSTEM_test) gir1.2-gst-plugins-base-1.0

# What to install from pyproject.toml. Where PyAudio would have to be built without apt, sounddevice does its work.
comma := ,
EXTRAS_check := [check]
EXTRAS_lab := $(if $(APT),[pyaudio])
EXTRAS_test := $(if $(APT),[pyaudio$(comma)test$(comma)docs],[test$(comma)docs])
EXTRAS_docs := $(if $(APT),[pyaudio$(comma)docs],[docs])
EXTRAS_bench := $(if $(APT),[pyaudio$(comma)test$(comma)bench],[test$(comma)bench])

.PHONY: help lab demo test check fuzz docs assignment fallback bench setup setup-lab setup-test setup-check setup-docs setup-bench clean
.SECONDARY:

help:  ## say what there is
	@sed -n 's/^\([a-z-]*\):.*## /  make \1|/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "%-18s %s\n", $$1, $$2 }'

lab: setup-lab  ## open the notebooks in JupyterLab; PORT=8890 for another port than its own
	@$(BIN)/avlab lab $(if $(PORT),--port=$(PORT))

demo: setup-lab  ## stream a clip on this machine for 10 s: a table, and plots in out/
	@$(BIN)/avlab demo --seconds 10 --out out

# Many tests wait more than they compute: three at a time, where there are fcntl's locks for those that must be alone.
WORKERS := $(if $(WINDOWS),0,3)
# Tests start hundreds of processes, each of which would compile avlab anew where Python is told to keep no bytecode.
test: export PYTHONDONTWRITEBYTECODE :=
test: setup-test check  ## check, then run every test, none skipped; ARGS="-k rtp" for some, ARGS="-n 0" one by one
	@$(BIN)/python -m pytest --require-all -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

check: setup-check  ## lint, format, types on Linux, Windows and macOS, and which room may import which
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(MAKE) --no-print-directory -j 3 types-linux types-win32 types-darwin
	@$(BIN)/lint-imports

types-%:
	@$(BIN)/mypy --platform $* --cache-dir .mypy_cache/$*

fuzz: export FUZZ_SECONDS ?= 600
fuzz: setup-check  ## feed hostile bytes to all that reads bytes of others; FUZZ_SECONDS=600
	@cd tests && ../$(BIN)/python -W error -m fuzz

docs: setup-docs  ## build the documentation site in build/docs, with every notebook run; a warning is an error
	@$(BIN)/python -m sphinx -W --keep-going -q -c docs -b html . build/docs
	@echo "The site is in build/docs: open build/docs/index.html"

assignment: setup-lab  ## hand-out and answers of the notebooks, in build/assignment; ARGS=03_pacing for one, FORMAT=otter
	@$(BIN)/python teaching/assignment.py $(if $(FORMAT),--format $(FORMAT)) $(ARGS)

fallback: setup-lab  ## recorded runs for a class without a network, in build/fallback
	@$(BIN)/python teaching/fallback.py

bench: setup-bench  ## measure speed beside other systems, on an otherwise idle machine; takes an hour
	@$(BIN)/python benchmarks/pacing.py
	@$(BIN)/python benchmarks/resources.py
	@$(BIN)/python benchmarks/relay.py
	@$(BIN)/python -m benchmarks.loss
	@$(BIN)/python -m benchmarks.avsync
	@$(BIN)/python -m benchmarks.view
	@$(BIN)/python -m benchmarks.live
	@$(BIN)/python -m benchmarks.peers --plot docs/peers.png
	@$(BIN)/python -m benchmarks.camera
	@$(BIN)/python -m benchmarks.fanout
	@$(BIN)/python -m benchmarks.profiles --calls

setup: setup-lab setup-test setup-check  ## only set up, for all of the above
setup-bench:  ## set up for benchmarks/, with the players that avlab is measured against
setup-lab setup-test setup-check setup-docs setup-bench: setup-%: .venv/.ready-%

clean:  ## remove what make has made, .venv too
	rm -rf .venv build out .pytest_cache .mypy_cache .ruff_cache .import_linter_cache *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/.ready-%: .venv/.system-% pyproject.toml
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || { echo "Making a virtual environment in .venv ..."; $(PYTHON) -m venv .venv; }
	@echo "Installing avlab$(EXTRAS_$*) and its dependencies into .venv, which takes minutes the first time ..."
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -e '.$(EXTRAS_$*)'
	@touch $@

# Names that a newer release has renamed (libglib2.0-0t64) count as installed when a package provides them.
.venv/.system-%: Makefile
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "avlab needs Python 3.11 or newer, which $(PYTHON) is not: name one, as in  make PYTHON=python3.12 ..."; exit 1; }
	@mkdir -p .venv
	@if [ -z "$(APT)" ]; then \
	    echo "No apt-get here, so system packages are left to you; on Debian they would be:$(SYSTEM_$*:%= %)"; \
	    touch $@; exit 0; \
	fi; \
	have=$$(dpkg-query -W -f '$${db:Status-Status} $${Package}, $${Provides}\n' | sed -n 's/^installed //p' \
	    | tr ',' '\n' | sed 's/^ *\([^ ]*\).*/\1/'); \
	missing=$$(for name in $(SYSTEM_$*); do echo "$$have" | grep -qxF "$$name" || printf ' %s' "$$name"; done); \
	if [ -n "$$missing" ]; then \
	    install="apt-get install -y --no-install-recommends$$missing"; \
	    if [ "$$(id -u)" = 0 ]; then sudo=; \
	    elif sudo -n true 2>/dev/null; then sudo="sudo -n"; \
	    else printf 'Some system packages are missing. Type this line, then make again:\n\n'; \
	        echo "    sudo apt-get update && sudo $$install"; exit 1; \
	    fi; \
	    echo "Installing system packages:$$missing ..."; \
	    { $$sudo apt-get update -q && $$sudo env DEBIAN_FRONTEND=noninteractive $$install; } \
	        >.venv/apt.log 2>&1 </dev/null || { tail -n 20 .venv/apt.log; echo "apt-get failed; all it said is in .venv/apt.log"; exit 1; }; \
	fi; \
	touch $@
