# The same image as `cargo xtask image` makes, for those who build with a container runtime.
FROM rust:1.95-bookworm AS build
RUN apt-get update && apt-get install --yes --no-install-recommends nftables iptables
WORKDIR /src
COPY . .
RUN cargo xtask image --root /image

FROM scratch
COPY --from=build /image /
ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin
ENTRYPOINT ["/usr/local/bin/minicnid"]
CMD ["run"]
