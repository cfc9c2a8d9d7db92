# Ends the machines of one folder and removes it, however the program that started this one dies: its standard input
# ends then. Machines live on when the controller that made them dies, so a guardian of processes does not know them.
# Arguments: the folder, the machines' program, and a folder that is gone once nobody makes machines any more.
machines=$1
binary=$2
makers=$3
trap '' HUP INT TERM PIPE
cd /
echo ready
cat >/dev/null

round=0
while [ -e "$makers" ] && [ $round -lt 1000 ]; do
    round=$((round + 1))
    sleep 0.02
done
for machine in "$machines"/*/; do
    [ -f "$machine/spec.json" ] || continue
    "$binary" kill --dir "$machine" 2>/dev/null || status=1
done
rm -rf -- "$machines" || status=1
exit ${status:-0}
