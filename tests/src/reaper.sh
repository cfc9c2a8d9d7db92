# Ends the machines of one folder and removes it, however the program that started this one dies: its standard input
# ends then. Machines live on when the controller that made them dies, so a guardian of processes does not know them.
# Arguments: the folder (created here), the machines' program, and a folder that is gone once nobody makes machines.
machines=$1
binary=$2
makers=$3
trap '' HUP INT TERM PIPE
cd /
umask 077
mkdir -- "$machines" || exit 1
echo ready
cat >/dev/null

round=0
while [ -e "$makers" ] && [ $round -lt 1000 ]; do
    round=$((round + 1))
    sleep 0.02
done
# A machine that is just starting shows itself by its arguments before it has written down what it is; and it may be
# between two programs at the moment of a look, so one look that finds nothing is not enough.
round=0
quiet=0
while [ $quiet -lt 3 ] && [ $round -lt 200 ]; do
    round=$((round + 1))
    quiet=$((quiet + 1))
    for machine in "$machines"/*/machine/; do
        [ ! -f "$machine/spec.json" ] || "$binary" kill --dir "$machine" 2>/dev/null
    done
    # The brackets keep this grep from finding itself.
    for file in $(grep -ls -- "${machines}[/]" /proc/[0-9]*/cmdline 2>/dev/null); do
        pid=${file#/proc/}
        kill -KILL "${pid%/cmdline}" 2>/dev/null && quiet=0
    done
    sleep 0.05
done
rm -rf -- "$machines"
[ $quiet -ge 3 ] && [ ! -e "$machines" ]
