# A user agent. From the repository's root:
#   docker build --file deploy/docker/agent.Dockerfile --tag slingshot-agent:0.1.0 .
#
# torch is the CUDA build, which also runs on CPUs and is gigabytes larger, unless a file pip.conf names PyTorch's index of
# CPU builds (pytorch.org has its address) as an extra-index-url:
#   docker build --secret id=pip,src=pip.conf …
#
# It runs as any user but root, on a read-only root: the agent stores its data in /data, and /tmp has to be writable. A
# container has no keyring: secrets are files in /run/secrets (see agent-entrypoint).

# The tag is pinned, its digest is not: set yours with --build-arg PYTHON_IMAGE=python:3.11.14-slim-bookworm@sha256:…
ARG PYTHON_IMAGE=python:3.11.14-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/slingshot
WORKDIR /src
COPY constraints.txt ./
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    /opt/slingshot/bin/pip install torch --constraint constraints.txt
COPY pyproject.toml README.md LICENSE ./
COPY core_server core_server
COPY user_agent user_agent
COPY shared shared
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    /opt/slingshot/bin/pip install ".[agent]" --constraint constraints.txt \
    && /opt/slingshot/bin/pip check
COPY --chmod=755 deploy/docker/is-answering deploy/docker/agent-entrypoint /opt/slingshot/bin/

FROM ${PYTHON_IMAGE}
COPY --from=build /opt/slingshot /opt/slingshot
RUN install --directory --owner=10001 --group=10001 --mode=0700 /data
# USER: torch asks for a name, and the container may run as a number that /etc/passwd lacks.
ENV PATH=/opt/slingshot/bin:$PATH HOME=/tmp USER=slingshot TMPDIR=/tmp PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 \
    XDG_CONFIG_HOME=/data/config XDG_DATA_HOME=/data/share SLINGSHOT_HOST=0.0.0.0
USER 10001:10001
WORKDIR /tmp
VOLUME /data
EXPOSE 8642
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=6s --start-period=60s \
    CMD ["is-answering", "http://127.0.0.1:8642/health"]
ENTRYPOINT ["agent-entrypoint"]
CMD ["serve"]
