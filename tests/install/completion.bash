#!/bin/bash
# Sources the completion for bash and asks it what comes next, as bash does on TAB.
set -eu
bash -n "$1"
# shellcheck source=/dev/null
source "$1"

# offers LINE: what is offered for the last word of LINE.
offers() {
    read -ra COMP_WORDS <<< "$1"
    case $1 in
        *' ') COMP_WORDS+=("") ;;
    esac
    COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
    COMPREPLY=()
    _evertoken evertoken "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
    echo "${COMPREPLY[*]}"
}

expect() {
    local offered
    offered=$(offers "$1")
    if [[ " $offered " != *" $2 "* ]]; then
        echo "for '$1' bash is offered '$offered', without $2" >&2
        exit 1
    fi
}

complete -p evertoken > /dev/null
expect "evertoken ch" check
expect "evertoken re" refresh
expect "evertoken check --on" --online
expect "evertoken run --log-format " json
expect "evertoken refresh --pro" --provider
