#!/bin/sh
# Print the path of a Java that Apache Spark can run on (17 or newer); else say why there is none, and fail.
set -u

java=${JAVA_HOME:+$JAVA_HOME/bin/}java
if ! version=$("$java" -version 2>&1); then
    echo "it needs Java 17 or newer, and \`$java\` doesn't run"
    exit 1
fi
number=$(echo "$version" | sed -n 's/.* version "\([0-9]*\).*/\1/p' | head -n 1)
if [ "${number:-0}" -lt 17 ]; then
    echo "it needs Java 17 or newer, and \`$java\` is version ${number:-unknown}"
    exit 1
fi
command -v "$java"
