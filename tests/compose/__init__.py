"""The deployment of docker-compose.yml, run by podman: images made here, a breach from one end to the other."""
