FROM python:3.11-slim
WORKDIR /app
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY monitor monitor
COPY classifiers classifiers
COPY streams streams
COPY alerts alerts
COPY migrations migrations
RUN pip install --no-cache-dir -c constraints.txt '.[postgres]' && useradd --create-home watcher
USER watcher
WORKDIR /home/watcher
ENTRYPOINT ["valuedrift"]
