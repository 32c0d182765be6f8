FROM python:3.11.13-slim-bookworm AS build
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY monitor monitor
COPY classifiers classifiers
COPY streams streams
COPY alerts alerts
COPY migrations migrations
RUN python -m venv /opt/valuedrift \
    && /opt/valuedrift/bin/pip install --no-cache-dir -c constraints.txt '.[postgres,kafka,serve,alerts,report]'

FROM python:3.11.13-slim-bookworm
# what WeasyPrint sets reports with
RUN apt-get update \
    && apt-get install -y --no-install-recommends libpangoft2-1.0-0 libharfbuzz-subset0 \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /opt/valuedrift /opt/valuedrift
# its own folder may be read-only: what fonts and pictures are prepared with goes to the temporary one
ENV PATH=/opt/valuedrift/bin:$PATH PYTHONUNBUFFERED=1 MPLCONFIGDIR=/tmp/matplotlib XDG_CACHE_HOME=/tmp/cache
RUN useradd --create-home --uid 10001 watcher
USER watcher
WORKDIR /home/watcher
ENTRYPOINT ["valuedrift"]
