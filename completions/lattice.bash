# Words are taken from the line, for bash would break them at colons; what it has broken off is not repeated.
_lattice_completion() {
    local line="${COMP_LINE:0:COMP_POINT}" kind value open="" broken=""
    local typed="${line##*[[:space:]]}"
    case "$typed" in
        \'* | \"*) open=yes ;;
        *[:=]*) broken="${typed%"${typed##*[:=]}"}" ;;
    esac
    COMPREPLY=()
    while IFS=, read -r kind value; do
        case "$kind" in
            dir) compopt -o dirnames 2>/dev/null ;;
            file) compopt -o default 2>/dev/null ;;
            plain)
                [[ $value == */ ]] && compopt -o nospace 2>/dev/null
                value="${value#"$broken"}"
                [[ -z $open ]] && printf -v value %q "$value" && value="${value//\\,/,}"
                COMPREPLY+=("$value")
                ;;
        esac
    done < <(COMP_WORDS="$line" _LATTICE_COMPLETE=bash_complete "$1" 2>/dev/null)
}

complete -o nosort -F _lattice_completion lattice
