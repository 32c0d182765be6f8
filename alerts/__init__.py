"""Alerts: which conditions hold, who is told of them, and why or why not.

What steps find (`reasons`, kept as findings) and what is read of every series go into a pass (`oncall`, which reads and
writes; `board`, which decides, pure):

    settings -> rulebook -> rules, conditions, burn    does a rule's condition hold
    machine                                            what its alert does next
    silences, stages                                   which target is told, or the reason why not
    -> states, decisions and the outbox, in one transaction
    delivery: outbox -> compose (a `notice`) -> targets/

`duty` is all of it for one process. People come in through `cli` and monitor.web.oncall: they read at the `desk`
(`asked` is what a rule says now, `desk_text` words for a terminal) and change things by `actions`, which the next pass
sees.
`console` shows an alert on the terminal, `severity` says which findings page, `sample` is a trial alert.
"""
