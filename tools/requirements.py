"""Print the package's run-time requirements, one a line, for pip to install before the package itself."""

import tomllib

with open("pyproject.toml", "rb") as file:
    for requirement in tomllib.load(file)["project"]["dependencies"]:
        print(requirement)
