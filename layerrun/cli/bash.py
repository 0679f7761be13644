"""The completion script of bash. click's own does not know names with ``@`` or ``:``, at which bash breaks words."""

from __future__ import annotations

__all__ = ["SCRIPT"]

# %(name)s and so on are click's. The first loop puts together what bash has broken at an @ or a colon, where there is
# no blank between; of each answer bash wants what begins with the @, or comes behind the colon, alone.
SCRIPT = r"""
%(complete_func)s() {
    local IFS=$'\n' response completion type value front='' rest=$COMP_LINE cword=$COMP_CWORD i
    local -a words=()

    for ((i = 0; i < ${#COMP_WORDS[@]}; i++)); do
        if ((i > 0)) && [[ $rest != [[:space:]]* && ( ${COMP_WORDS[i]} == [@:]* || ${words[-1]} == *[@:] ) ]]; then
            words[-1]+=${COMP_WORDS[i]}
            ((i > COMP_CWORD)) || ((cword -= 1))
        else
            words+=("${COMP_WORDS[i]}")
        fi
        rest=${rest#"${rest%%%%[![:space:]]*}"}
        rest=${rest#"${COMP_WORDS[i]}"}
    done
    if [[ ${words[cword]} == *@* && $COMP_WORDBREAKS == *@* ]]; then
        front=${words[cword]%%@*}
    fi
    if [[ ${words[cword]} == *:* && $COMP_WORDBREAKS == *:* ]]; then
        front=${words[cword]%%:*}:
    fi

    response=$(env COMP_WORDS="${words[*]}" COMP_CWORD=$cword %(complete_var)s=bash_complete $1)

    for completion in $response; do
        IFS=',' read -r type value <<< "$completion"

        if [[ $type == 'dir' ]]; then
            COMPREPLY=()
            compopt -o dirnames
        elif [[ $type == 'file' ]]; then
            COMPREPLY=()
            compopt -o default
        elif [[ $type == 'plain' ]]; then
            COMPREPLY+=("${value#"$front"}")
        fi
    done

    return 0
}

%(complete_func)s_setup() {
    complete -o nosort -F %(complete_func)s %(prog_name)s
}

%(complete_func)s_setup;
"""
