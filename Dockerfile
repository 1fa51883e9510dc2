# All daemons in one small image. The programs are linked statically, so there is nothing else in it:
# no shell, no libraries, no package manager.
ARG RUST_IMAGE=rust:1.95.0-slim-bookworm
FROM ${RUST_IMAGE} AS build

WORKDIR /src
# A target that is named keeps these flags from what runs at build time.
ENV RUSTFLAGS="-C target-feature=+crt-static"
ARG TARGET=x86_64-unknown-linux-gnu
# A network that fails for a moment need not fail the build.
ENV CARGO_NET_RETRY=10

# Dependencies first, from the manifests alone: this layer is kept until one of them changes. What
# the manifests name must be there, if only in name.
COPY Cargo.toml Cargo.lock ./
COPY api/Cargo.toml api/
COPY ledger/Cargo.toml ledger/
COPY lb/Cargo.toml lb/
COPY monitor/Cargo.toml monitor/
COPY payment-processor/Cargo.toml payment-processor/
COPY rinha-test/Cargo.toml rinha-test/
COPY store/Cargo.toml store/
RUN for crate in api ledger lb monitor payment-processor rinha-test store; do \
      mkdir -p $crate/src && echo '//! -' > $crate/src/lib.rs \
      && printf '//! -\nfn main() {}\n' > $crate/src/main.rs \
      && mkdir -p $crate/benches || exit 1; \
      for bench in $(sed -n '/^\[\[bench\]\]/,/^name/s/^name = "\(.*\)"/\1/p' $crate/Cargo.toml); do \
        : > $crate/benches/$bench.rs; \
      done; \
    done \
 && cargo build --release --locked --target $TARGET \
      -p api -p lb -p monitor -p store -p payment-processor \
 && rm -r api ledger lb monitor payment-processor store

COPY api api
COPY ledger ledger
COPY lb lb
COPY monitor monitor
COPY payment-processor payment-processor
COPY store store
# Newer than what was built above, whatever time the files have.
RUN find . -name '*.rs' -path '*/src/*' -exec touch {} + \
 && cargo build --release --locked --target $TARGET \
      -p api -p lb -p monitor -p store -p payment-processor \
 && mkdir -p /image/bin /image/data \
 && for program in api lb monitor store payment-processor; do \
      strip -o /image/bin/$program target/$TARGET/release/$program; \
    done

FROM scratch
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="payment-router" \
      org.opencontainers.image.description="A payment intermediary that loses nothing and pays nothing twice: balancer, API, store, and a simulated processor" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /image/bin/ /bin/
# A volume that is mounted here for the first time takes over whose it is.
COPY --from=build --chown=65532:65532 /image/data /data
USER 65532:65532
WORKDIR /
# Each service says which of the programs it is.
CMD ["/bin/lb", "--help"]
