# What people and CI run. `make test` installs what the tests need and is missing.
CARGO ?= cargo

.PHONY: build demo test lint doc bench

build:
	$(CARGO) build --release --locked --bins

demo:
	$(CARGO) run --release --locked --bin cluster-proxy -- demo

test:
	bash tests/install.sh
	$(CARGO) build --workspace --locked --bins
	$(CARGO) test --workspace --locked

lint:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings

doc:
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --document-private-items --locked

bench:
	$(CARGO) test --locked -p tests --test measured -- --nocapture
