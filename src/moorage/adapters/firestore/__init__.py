"""The store in Firestore, for where no server is to be kept: Cloud Run and the like.

Pure parts (`kinds`, `documents`, `plan`, `queries`) say what is to be read and written; `database` alone
talks to Firestore, under deadlines. Nothing here uses Firestore's transactions: they lock, and are slow where
processes meet. What must not have changed is guarded by its update time instead, and decided anew when it
has.
The client library is an extra: only `opening` and what it opens import it.
"""
