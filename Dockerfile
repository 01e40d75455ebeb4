# One image for every host; the last stage adds what `lab` and `locust` need.  docker-compose.yml defines the hosts.
ARG BASE=debian:trixie-slim

FROM ${BASE} AS build
RUN --mount=type=cache,target=/var/cache/apt,sharing=locked --mount=type=cache,target=/var/lib/apt,sharing=locked \
    rm -f /etc/apt/apt.conf.d/docker-clean \
    && apt-get update && apt-get install -y --no-install-recommends python3 python3-venv
WORKDIR /build
COPY requirements/build.txt requirements/base.txt requirements/
RUN --mount=type=cache,target=/root/.cache/pip \
    python3 -m venv /opt/build && /opt/build/bin/pip install --quiet --require-hashes -r requirements/build.txt \
    && python3 -m venv /opt/venv && /opt/venv/bin/pip install --quiet --require-hashes -r requirements/base.txt
COPY pyproject.toml README.md LICENSE docker-compose.yml ./
COPY dns dns
COPY pki pki
COPY services services
COPY loadtest loadtest
COPY lab lab
RUN /opt/build/bin/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir /wheels . \
    && /opt/venv/bin/pip install --quiet --no-deps /wheels/*.whl

FROM build AS build-lab
COPY requirements/load.txt requirements/
RUN --mount=type=cache,target=/root/.cache/pip \
    /opt/venv/bin/pip install --quiet --require-hashes -r requirements/load.txt

# --- every host ---------------------------------------------------------------------------------------------------
FROM ${BASE} AS host
RUN --mount=type=cache,target=/var/cache/apt,sharing=locked --mount=type=cache,target=/var/lib/apt,sharing=locked \
    rm -f /etc/apt/apt.conf.d/docker-clean \
    && apt-get update && apt-get install -y --no-install-recommends python3 iproute2 tini \
    && useradd --uid 1000 --user-group --no-create-home --shell /usr/sbin/nologin host \
    # A new volume takes its owner from the folder that it is mounted on.
    && install -d -o 1000 -g 1000 /srv/root /srv/ca /srv/passphrase /srv/trust /srv/token /srv/tls /srv/results /srv/catalog /srv/keys /srv/tsig /srv/state /srv/subject \
    && install -d /srv/etc /srv/zones
COPY --from=build /opt/venv /opt/venv

# --- lab, locust: with independent programs to test against --------------------------------------------------------
FROM host AS lab
RUN --mount=type=cache,target=/var/cache/apt,sharing=locked --mount=type=cache,target=/var/lib/apt,sharing=locked \
    apt-get update && apt-get install -y --no-install-recommends bind9-dnsutils curl dnsperf fonts-dejavu-core iperf3 knot-dnsutils librsvg2-bin nftables openssl unbound
COPY --from=build-lab /opt/venv /opt/venv
COPY loadtest/locustfile.py /opt/locustfile.py
