# Nothing to do: whoever has the lock knows that nothing else changes the machine.
fact settled yes
