-- A ledger of schema number 1, of a controller that was killed in a shadow step: its plan knows no warm-up.
BEGIN TRANSACTION;
CREATE TABLE affected_users (
    user               BLOB PRIMARY KEY,
    failures_on_stable INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE cursor (
    instance TEXT NOT NULL,
    version  TEXT NOT NULL,
    signal   TEXT NOT NULL,
    bad      INTEGER NOT NULL,
    total    INTEGER NOT NULL,
    PRIMARY KEY (instance, version, signal)
) STRICT, WITHOUT ROWID;
INSERT INTO "cursor" VALUES('m:v1-process','m:v1','class:0',382,1617);
INSERT INTO "cursor" VALUES('m:v1-process','m:v1','class:1',421,1617);
INSERT INTO "cursor" VALUES('m:v1-process','m:v1','class:2',425,1617);
INSERT INTO "cursor" VALUES('m:v1-process','m:v1','class:3',389,1617);
INSERT INTO "cursor" VALUES('m:v1-process','m:v1','disagreement',0,797);
INSERT INTO "cursor" VALUES('m:v1-process','m:v1','errors',12,1629);
INSERT INTO "cursor" VALUES('m:v1-process','m:v1','latency:10',11,1629);
INSERT INTO "cursor" VALUES('m:v1-process','m:v1','latency:100',11,1629);
INSERT INTO "cursor" VALUES('m:v1-process','m:v1','latency:1000',11,1629);
INSERT INTO "cursor" VALUES('m:v1-process','m:v1','latency:25',11,1629);
INSERT INTO "cursor" VALUES('m:v1-process','m:v1','latency:250',11,1629);
INSERT INTO "cursor" VALUES('m:v1-process','m:v1','latency:2500',11,1629);
INSERT INTO "cursor" VALUES('m:v1-process','m:v1','latency:5',11,1629);
INSERT INTO "cursor" VALUES('m:v1-process','m:v1','latency:50',11,1629);
INSERT INTO "cursor" VALUES('m:v1-process','m:v1','latency:500',11,1629);
INSERT INTO "cursor" VALUES('m:v1-process','m:v1','latency:5000',11,1629);
INSERT INTO "cursor" VALUES('m:v1-process','m:v1','low_confidence:0.5',26,1617);
INSERT INTO "cursor" VALUES('m:v2-process','m:v2','class:0',198,797);
INSERT INTO "cursor" VALUES('m:v2-process','m:v2','class:1',183,797);
INSERT INTO "cursor" VALUES('m:v2-process','m:v2','class:2',206,797);
INSERT INTO "cursor" VALUES('m:v2-process','m:v2','class:3',210,797);
INSERT INTO "cursor" VALUES('m:v2-process','m:v2','disagreement',0,797);
INSERT INTO "cursor" VALUES('m:v2-process','m:v2','errors',13,810);
INSERT INTO "cursor" VALUES('m:v2-process','m:v2','latency:10',9,810);
INSERT INTO "cursor" VALUES('m:v2-process','m:v2','latency:100',9,810);
INSERT INTO "cursor" VALUES('m:v2-process','m:v2','latency:1000',9,810);
INSERT INTO "cursor" VALUES('m:v2-process','m:v2','latency:25',9,810);
INSERT INTO "cursor" VALUES('m:v2-process','m:v2','latency:250',9,810);
INSERT INTO "cursor" VALUES('m:v2-process','m:v2','latency:2500',9,810);
INSERT INTO "cursor" VALUES('m:v2-process','m:v2','latency:5',9,810);
INSERT INTO "cursor" VALUES('m:v2-process','m:v2','latency:50',9,810);
INSERT INTO "cursor" VALUES('m:v2-process','m:v2','latency:500',9,810);
INSERT INTO "cursor" VALUES('m:v2-process','m:v2','latency:5000',9,810);
INSERT INTO "cursor" VALUES('m:v2-process','m:v2','low_confidence:0.5',22,797);
CREATE TABLE cursor_time (only INTEGER PRIMARY KEY CHECK (only = 1), at_s REAL NOT NULL) STRICT;
INSERT INTO "cursor_time" VALUES(1,1800000042.5);
CREATE TABLE events (
    seq     INTEGER PRIMARY KEY,
    at_s    REAL NOT NULL,
    release INTEGER,
    kind    TEXT NOT NULL,
    data    TEXT NOT NULL
, schema INTEGER NOT NULL DEFAULT 0) STRICT;
INSERT INTO "events" VALUES(1,1800000000.0,NULL,'stable_set','{"at_s":1800000000.0,"release":null,"kind":"stable_set","tag":"m:v1"}',1);
INSERT INTO "events" VALUES(2,1800000000.5,NULL,'applied','{"at_s":1800000000.5,"release":null,"kind":"applied","stable":"m:v1","canary":null,"weight_percent":0.0,"mirror":false}',1);
INSERT INTO "events" VALUES(3,1800000020.0,1,'release_requested','{"at_s":1800000020.0,"release":1,"kind":"release_requested","tag":"m:v2","stable":"m:v1","spec":{"steps":["shadow",1,5,25,50,100],"step_deadline":600.0,"on_deadline":"hold","soak":30.0,"risk_budget":0.005,"alpha":0.01,"window":10.0,"watch":900.0,"startup_deadline":120.0,"down_after":10.0,"evidence_deadline":120.0,"sticky":null,"on_drift":"report","signals":{"errors":{"on_fail":"rollback","tolerance":1.25},"latency":{"on_fail":"rollback","tolerance":1.25,"slower_than_ms":[25,50,100,250,500,1000]},"class":{"on_fail":"hold","tolerance":1.5,"gross":4.0},"low_confidence":{"on_fail":"rollback","tolerance":1.5,"below":0.5},"wrong_label":{"on_fail":"rollback","tolerance":1.25,"required":false},"disagreement":{"on_fail":"rollback","at_most":0.1}},"guards":{"error_ratio":0.2}},"by":"ann","retry":false}',1);
INSERT INTO "events" VALUES(4,1800000020.5,1,'applied','{"at_s":1800000020.5,"release":1,"kind":"applied","stable":"m:v1","canary":"m:v2","weight_percent":0.0,"mirror":false}',1);
INSERT INTO "events" VALUES(5,1800000022.5,1,'canary_ready','{"at_s":1800000022.5,"release":1,"kind":"canary_ready","took_s":2.5}',1);
INSERT INTO "events" VALUES(6,1800000022.5,1,'calibrated','{"at_s":1800000022.5,"release":1,"kind":"calibrated","phi":{"class:0":1.0,"class:1":1.0,"class:2":1.0,"class:3":1.0,"errors":1.0,"latency:100":1.0,"latency:1000":1.0,"latency:25":1.0,"latency:250":1.0,"latency:50":1.0,"latency:500":1.0,"low_confidence":1.0},"history_s":14.0,"stable_errors":[5,666]}',1);
INSERT INTO "events" VALUES(7,1800000022.5,1,'step_entered','{"at_s":1800000022.5,"release":1,"kind":"step_entered","step":0,"weight_percent":0.0,"mirror":true,"reason":"m:v2 is ready","by":"judge","evidence":null}',1);
INSERT INTO "events" VALUES(8,1800000022.5,1,'applied','{"at_s":1800000022.5,"release":1,"kind":"applied","stable":"m:v1","canary":"m:v2","weight_percent":0.0,"mirror":true}',1);
INSERT INTO "events" VALUES(9,1800000032.5,1,'ticked','{"at_s":1800000032.5,"release":1,"kind":"ticked","window_s":10.0,"weight_percent":0.0,"mirror":true,"windows":{"class:0":{"stable":[90,392],"canary":[110,390]},"class:1":{"stable":[97,392],"canary":[90,390]},"class:2":{"stable":[114,392],"canary":[95,390]},"class:3":{"stable":[91,392],"canary":[95,390]},"disagreement":{"stable":[0,390],"canary":[0,390]},"errors":{"stable":[2,394],"canary":[4,394]},"latency:100":{"stable":[1,394],"canary":[3,394]},"latency:1000":{"stable":[1,394],"canary":[3,394]},"latency:25":{"stable":[1,394],"canary":[3,394]},"latency:250":{"stable":[1,394],"canary":[3,394]},"latency:50":{"stable":[1,394],"canary":[3,394]},"latency:500":{"stable":[1,394],"canary":[3,394]},"low_confidence":{"stable":[6,392],"canary":[14,390]}},"evidence":{"verdict":"pass","reason":"with 99 % certainty fewer than 0.035 % of requests would be harmed at 1 %","log_e":-0.31240577571616446,"threshold":4.605170185988091,"signals":{"class:0":{"verdict":"pass","log_e":-0.695554385991696,"threshold":7.783224016336037,"stable":[90,392],"canary":[110,390],"canary_per_s":39.0,"latest_s":1800000032.5},"class:1":{"verdict":"pass","log_e":-0.6958932565633785,"threshold":7.783224016336037,"stable":[97,392],"canary":[90,390],"canary_per_s":39.0,"latest_s":1800000032.5},"class:2":{"verdict":"pass","log_e":-0.6957379168028295,"threshold":7.783224016336037,"stable":[114,392],"canary":[95,390],"canary_per_s":39.0,"latest_s":1800000032.5},"class:3":{"verdict":"pass","log_e":-0.6959026315498043,"threshold":7.783224016336037,"stable":[91,392],"canary":[95,390],"canary_per_s":39.0,"latest_s":1800000032.5},"disagreement":{"verdict":"pass","log_e":-0.6959288224263126,"threshold":6.80239476332431,"stable":[0,390],"canary":[0,390],"canary_per_s":39.0,"latest_s":1800000032.5,"limit":0.1},"errors":{"verdict":"pass","log_e":-0.25715303034288917,"threshold":5.416100402204419,"stable":[2,394],"canary":[4,394],"excess_upper":0.034882701352077765,"more_requests_needed":0.0,"canary_per_s":39.4,"latest_s":1800000032.5},"latency:100":{"verdict":"pass","log_e":-0.02636593364810147,"threshold":8.1886891244442,"stable":[1,394],"canary":[3,394],"canary_per_s":39.4,"latest_s":1800000032.5},"latency:1000":{"verdict":"pass","log_e":-0.02636593364810147,"threshold":8.1886891244442,"stable":[1,394],"canary":[3,394],"canary_per_s":39.4,"latest_s":1800000032.5},"latency:25":{"verdict":"pass","log_e":-0.02636593364810147,"threshold":8.1886891244442,"stable":[1,394],"canary":[3,394],"canary_per_s":39.4,"latest_s":1800000032.5},"latency:250":{"verdict":"pass","log_e":-0.02636593364810147,"threshold":8.1886891244442,"stable":[1,394],"canary":[3,394],"canary_per_s":39.4,"latest_s":1800000032.5},"latency:50":{"verdict":"pass","log_e":-0.02636593364810147,"threshold":8.1886891244442,"stable":[1,394],"canary":[3,394],"canary_per_s":39.4,"latest_s":1800000032.5},"latency:500":{"verdict":"pass","log_e":-0.02636593364810147,"threshold":8.1886891244442,"stable":[1,394],"canary":[3,394],"canary_per_s":39.4,"latest_s":1800000032.5},"low_confidence":{"verdict":"pass","log_e":-0.2426466975249867,"threshold":6.80239476332431,"stable":[6,392],"canary":[14,390],"canary_per_s":39.0,"latest_s":1800000032.5}},"on_fail":"rollback"},"action":"Hold","why":"passed; the step soaks 20 s more"}',1);
INSERT INTO "events" VALUES(10,1800000042.5,1,'ticked','{"at_s":1800000042.5,"release":1,"kind":"ticked","window_s":10.0,"weight_percent":0.0,"mirror":true,"windows":{"class:0":{"stable":[103,413],"canary":[88,407]},"class:1":{"stable":[98,413],"canary":[93,407]},"class:2":{"stable":[110,413],"canary":[111,407]},"class:3":{"stable":[102,413],"canary":[115,407]},"disagreement":{"stable":[0,407],"canary":[0,407]},"errors":{"stable":[3,416],"canary":[9,416]},"latency:100":{"stable":[4,416],"canary":[6,416]},"latency:1000":{"stable":[4,416],"canary":[6,416]},"latency:25":{"stable":[4,416],"canary":[6,416]},"latency:250":{"stable":[4,416],"canary":[6,416]},"latency:50":{"stable":[4,416],"canary":[6,416]},"latency:500":{"stable":[4,416],"canary":[6,416]},"low_confidence":{"stable":[5,413],"canary":[8,407]}},"evidence":{"verdict":"pass","reason":"with 99 % certainty fewer than 0.032 % of requests would be harmed at 1 %","log_e":-0.2348283418284427,"threshold":4.605170185988091,"signals":{"class:0":{"verdict":"pass","log_e":-0.6987179177192502,"threshold":7.783224016336037,"stable":[193,805],"canary":[198,797],"canary_per_s":39.89473684210526,"latest_s":1800000042.5},"class:1":{"verdict":"pass","log_e":-0.6987181669235142,"threshold":7.783224016336037,"stable":[195,805],"canary":[183,797],"canary_per_s":39.89473684210526,"latest_s":1800000042.5},"class:2":{"verdict":"pass","log_e":-0.6987182022756067,"threshold":7.783224016336037,"stable":[224,805],"canary":[206,797],"canary_per_s":39.89473684210526,"latest_s":1800000042.5},"class:3":{"verdict":"pass","log_e":-0.6987180377633031,"threshold":7.783224016336037,"stable":[193,805],"canary":[210,797],"canary_per_s":39.89473684210526,"latest_s":1800000042.5},"disagreement":{"verdict":"pass","log_e":-0.698718225608073,"threshold":6.80239476332431,"stable":[0,797],"canary":[0,797],"canary_per_s":39.89473684210526,"latest_s":1800000042.5,"limit":0.1},"errors":{"verdict":"pass","log_e":0.0282724567796232,"threshold":5.416100402204419,"stable":[5,810],"canary":[13,810],"excess_upper":0.03112057436599061,"more_requests_needed":0.0,"canary_per_s":40.55789473684211,"latest_s":1800000042.5},"latency:100":{"verdict":"pass","log_e":-0.32943853520439864,"threshold":8.1886891244442,"stable":[5,810],"canary":[9,810],"canary_per_s":40.55789473684211,"latest_s":1800000042.5},"latency:1000":{"verdict":"pass","log_e":-0.32943853520439864,"threshold":8.1886891244442,"stable":[5,810],"canary":[9,810],"canary_per_s":40.55789473684211,"latest_s":1800000042.5},"latency:25":{"verdict":"pass","log_e":-0.32943853520439864,"threshold":8.1886891244442,"stable":[5,810],"canary":[9,810],"canary_per_s":40.55789473684211,"latest_s":1800000042.5},"latency:250":{"verdict":"pass","log_e":-0.32943853520439864,"threshold":8.1886891244442,"stable":[5,810],"canary":[9,810],"canary_per_s":40.55789473684211,"latest_s":1800000042.5},"latency:50":{"verdict":"pass","log_e":-0.32943853520439864,"threshold":8.1886891244442,"stable":[5,810],"canary":[9,810],"canary_per_s":40.55789473684211,"latest_s":1800000042.5},"latency:500":{"verdict":"pass","log_e":-0.32943853520439864,"threshold":8.1886891244442,"stable":[5,810],"canary":[9,810],"canary_per_s":40.55789473684211,"latest_s":1800000042.5},"low_confidence":{"verdict":"pass","log_e":-0.3862383081335016,"threshold":6.80239476332431,"stable":[11,805],"canary":[22,797],"canary_per_s":39.89473684210526,"latest_s":1800000042.5}},"on_fail":"rollback"},"action":"Hold","why":"passed; the step soaks 10 s more"}',1);
CREATE TABLE failures_read (
    only           INTEGER PRIMARY KEY CHECK (only = 1),
    read_to        INTEGER NOT NULL,
    waiting_stable INTEGER NOT NULL,
    waiting_canary INTEGER NOT NULL
) STRICT;
CREATE INDEX events_of_release ON events (release, kind);
CREATE TRIGGER events_are_never_changed BEFORE UPDATE ON events
    BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER events_are_never_deleted BEFORE DELETE ON events
    BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
COMMIT;
PRAGMA user_version=1;
