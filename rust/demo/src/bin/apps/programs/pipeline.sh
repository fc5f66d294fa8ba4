set -m
sleep 100000 | cat | cat &
kill -STOP %1
sleep 100000 | cat &
n=0
while read -r _ <ask; do
	jobs >list
	n=$((n + 1))
	echo "$n with $(grep -c Stopped list) of $(grep -c sleep list) jobs stopped" >answer
done
