# Registers this process with its guardian, then replaces itself by the program.
# Arguments: the register's folder, the program, its arguments.
register=$1
shift
field_20() { shift 19; start=$1; }
read -r stat <"/proc/$$/stat" || exit 126
field_20 ${stat##*) }
: >"$register/$$.$start" || exit 126
exec "$@"
