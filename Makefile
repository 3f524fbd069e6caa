# What people and CI run. `make test` installs what the tests need and is missing.
CARGO ?= cargo

.PHONY: build demo test lint doc bench bench-full

build:
	$(CARGO) build --release --locked --bins

demo:
	$(CARGO) run --release --locked --bin cluster-proxy -- demo

test:
	bash tests/install.sh
	$(CARGO) build --locked -p proxy-server -p proxy-agent -p cli
	$(CARGO) test --workspace --locked

lint:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings

doc:
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --document-private-items --locked

# The programs that answer the questions of bench/README.md, in their order.
QUESTIONS = bulk requests connections beside loss stalls idle recovery many_clusters
TARGET ?= $(or $(CARGO_TARGET_DIR),target)

# Asks all questions in the short form, within 5 minutes after the build, and prints every figure beside its target.
bench: FORM = --short
# The same with all numbers of streams and connections, and for long enough to be quoted.
bench-full: FORM =

bench bench-full: build
	rm -rf $(TARGET)/bench
	failed=; for question in $(QUESTIONS); do $(TARGET)/release/$$question $(FORM) || failed="$$failed $$question"; done; \
	$(TARGET)/release/report && test -z "$$failed" || { echo "failed:$$failed" >&2; exit 1; }
