# Counts by a semaphore in another process, which it tells by messages, for whoever connects to the
# socket.
use strict;
use warnings;
use IO::Socket::UNIX;
use IPC::SysV qw(GETVAL IPC_CREAT IPC_PRIVATE);

use constant { REQUEST => 1, ANSWER => 2 };

my $queue = msgget(IPC_PRIVATE, IPC_CREAT | 0600) // die "msgget: $!";
my $set = semget(IPC_PRIVATE, 2, IPC_CREAT | 0600) // die "semget: $!";
my $segment = shmget(IPC_PRIVATE, 10000, IPC_CREAT | 0600) // die "shmget: $!";

# A signal, or a restore, may interrupt each call.
sub receive {
	my $message;
	until (msgrcv($queue, $message, 256, $_[0], 0)) { $!{EINTR} or die "msgrcv: $!" }
	return (unpack 'l! a*', $message)[1];
}

sub send_message { msgsnd($queue, pack('l! a*', @_), 0) or die "msgsnd: $!" }

if (!(fork // die "fork: $!")) {
	while (1) {
		receive(REQUEST);
		semop($set, pack 's!3', 0, 1, 0) or die "semop: $!";
		send_message(ANSWER, int semctl $set, 0, GETVAL, 0);
	}
}

my $server = IO::Socket::UNIX->new(Local => $ARGV[0], Listen => 1) or die "socket: $!";
while (1) {
	my $client = $server->accept or next;
	send_message(REQUEST, '');
	my $count = receive(ANSWER);
	print $client "$count of queue $queue, set $set, segment $segment\n";
	close $client;
}
