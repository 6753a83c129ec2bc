#compdef lattice

_lattice_completion() {
    local -a completions
    local -a completions_with_descriptions
    local -a response
    local -a levels
    (( ! $+commands[lattice] )) && return 1

    response=("${(@f)$(env COMP_WORDS="${words[*]}" COMP_CWORD=$((CURRENT-1)) _LATTICE_COMPLETE=zsh_complete lattice)}")

    for type key descr in ${response}; do
        if [[ "$type" == "plain" ]]; then
            if [[ "$descr" == "_" ]]; then
                if [[ "$key" == */ ]]; then levels+=("$key"); else completions+=("$key"); fi
            else
                completions_with_descriptions+=("$key":"$descr")
            fi
        elif [[ "$type" == "dir" ]]; then
            _path_files -/
        elif [[ "$type" == "file" ]]; then
            _path_files -f
        fi
    done

    if [ -n "$completions_with_descriptions" ]; then
        _describe -V unsorted completions_with_descriptions -U
    fi

    if [ -n "$levels" ]; then
        compadd -U -V unsorted -S '' -a levels
    fi

    if [ -n "$completions" ]; then
        compadd -U -V unsorted -a completions
    fi
}

if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    # autoload from fpath, call function directly
    _lattice_completion "$@"
else
    # eval/source/. command, register function for later
    compdef _lattice_completion lattice
fi
