BEGIN TRANSACTION;
CREATE TABLE deliveries (
        run_id VARCHAR NOT NULL, client VARCHAR NOT NULL, setup_digest VARCHAR NOT NULL,
        PRIMARY KEY (run_id, client, setup_digest), FOREIGN KEY(run_id) REFERENCES runs (id));
CREATE TABLE evaluations (
        run_id VARCHAR NOT NULL, round INTEGER NOT NULL, scope VARCHAR NOT NULL,
        "group" VARCHAR NOT NULL, num_examples INTEGER NOT NULL, metrics JSON NOT NULL,
        PRIMARY KEY (run_id, round, scope, "group"), FOREIGN KEY(run_id) REFERENCES runs (id));
INSERT INTO "evaluations" VALUES('demo-20261121-193533-6c50',0,'central','',40,'{"loss": 1.875, "exact_match": 0.125}');
INSERT INTO "evaluations" VALUES('demo-20261121-193533-6c50',0,'central','age',20,'{"loss": 1.875, "exact_match": 0.125}');
INSERT INTO "evaluations" VALUES('demo-20261121-193533-6c50',0,'central','bus',20,'{"loss": 1.875, "exact_match": 0.125}');
INSERT INTO "evaluations" VALUES('demo-20261121-193533-6c50',1,'central','',40,'{"loss": 1.625, "exact_match": 0.375}');
INSERT INTO "evaluations" VALUES('demo-20261121-193533-6c50',1,'central','age',20,'{"loss": 1.625, "exact_match": 0.375}');
INSERT INTO "evaluations" VALUES('demo-20261121-193533-6c50',1,'central','bus',20,'{"loss": 1.625, "exact_match": 0.375}');
INSERT INTO "evaluations" VALUES('demo-20261121-193533-6c50',2,'central','',40,'{"loss": 1.375, "exact_match": 0.625}');
INSERT INTO "evaluations" VALUES('demo-20261121-193533-6c50',2,'central','age',20,'{"loss": 1.375, "exact_match": 0.625}');
INSERT INTO "evaluations" VALUES('demo-20261121-193533-6c50',2,'central','bus',20,'{"loss": 1.375, "exact_match": 0.625}');
CREATE TABLE events (
        sequence INTEGER NOT NULL, run_id VARCHAR NOT NULL, time VARCHAR NOT NULL,
        kind VARCHAR NOT NULL, message TEXT NOT NULL, PRIMARY KEY (sequence),
        FOREIGN KEY(run_id) REFERENCES runs (id));
CREATE TABLE rounds (
        run_id VARCHAR NOT NULL, round INTEGER NOT NULL, state_digest VARCHAR NOT NULL,
        residual_digest VARCHAR NOT NULL, seconds FLOAT NOT NULL, phases JSON NOT NULL,
        committed_at VARCHAR NOT NULL, privacy JSON NOT NULL DEFAULT '{}', next_max_norm FLOAT NOT NULL DEFAULT 0, averaging_error FLOAT, PRIMARY KEY (run_id, round),
        FOREIGN KEY(run_id) REFERENCES runs (id));
INSERT INTO "rounds" VALUES('demo-20261121-193533-6c50',0,'4e8e56887d81b28aaa637f0d4f6769c2a91f1379188941881ef741114ad7dff2','',3.0,'{"evaluation": 2.5}','2026-11-21T19:35:33+00:00','null',0.0,NULL);
INSERT INTO "rounds" VALUES('demo-20261121-193533-6c50',1,'37d01c493017b7e8f579ba518fcc548eaa648a563d21900b87b30a7c62bbd7b2','',5.0,'{"training": 4.0, "evaluation": 1.0}','2026-11-21T19:35:33+00:00','null',0.0,NULL);
INSERT INTO "rounds" VALUES('demo-20261121-193533-6c50',2,'78b3080bd576fe8232562cdf424b5e03fdf51269786809de671a0e6e8cf87da3','',5.0,'{"training": 4.0, "evaluation": 1.0}','2026-11-21T19:35:33+00:00','null',0.0,NULL);
CREATE TABLE runs (
        id VARCHAR NOT NULL, name VARCHAR NOT NULL, config TEXT NOT NULL,
        status VARCHAR NOT NULL, created_at VARCHAR NOT NULL, version VARCHAR NOT NULL,
        base_digest VARCHAR NOT NULL, frame_digest VARCHAR NOT NULL,
        manifest_digest VARCHAR NOT NULL, final_digest VARCHAR NOT NULL, error TEXT NOT NULL,
        PRIMARY KEY (id));
INSERT INTO "runs" VALUES('demo-20261121-193533-6c50','demo','{"adapter":{"eta":0.00025,"initialiser":"lora-sb","layers_at_once":28,"oversampling":8,"rank":64,"samples":64,"scale":1.0,"targets":["auto"],"train_head":true},"codec":{"alpha":1.0,"density":0.1,"downlink":"dense","error_feedback":true,"name":"ternary","rule":"least_squares"},"data":{"columns":[],"completion_template":"{completion}","fields":{"completion":"completion","group":"family","label":"label","messages":"","prompt":"prompt","text":"text","text_pair":""},"format":"auto","max_test":400,"max_train":0,"partition":{"alpha":0.5,"clients":4,"field":"family","kind":"field","min_samples":1},"prompt_template":"{prompt}","public":"demo","test":"demo","train":"demo"},"evaluation":{"batch_size":100,"before":true,"every":10,"exact_match":true,"federated":false,"holdout":0.1},"head":{"center_share":0.05,"learning_rate":0.0,"max_grad_norm":1.0,"rounds":0,"share":0.5,"steps":0},"method":"fedsb","model":{"chat_template":"","device":"cpu","dtype":"float32","quant":"none","revision":"","source":"demo"},"name":"demo","privacy":{"client_max_norm":1.0,"client_rate":1.0,"clip_quantile":0.0,"clip_rate":0.2,"count_noise":0.0,"delta":1e-05,"epsilon":8.0,"max_batch":0,"max_grad_norm":1.0,"mechanism":"none","noise_multiplier":0.0,"sampling":"poisson","sketch_max_norm":0.01,"sketch_share":0.3,"spare_rounds":0},"rounds":{"cohort":0,"deadline":3600.0,"max_update_norm":10000.0,"max_weight":1000000,"min_clients":0,"min_replies":0,"retries":2,"total":2,"weighting":"examples"},"seed":17,"simulation":{"backend":"ray","gpus_per_worker":0.0,"threads":1,"workers":2},"store":{"keep_states":0,"path":"runs"},"task":{"answer_after":"","kind":"causal-lm","labels":[],"max_length":64,"max_new_tokens":8,"normalise":true,"pooled_layers":0,"pooling":"auto","too_long":"drop"},"training":{"batch_size":32,"beta1":0.9,"beta2":0.999,"epochs":1,"head_learning_rate":0.0,"learning_rate":0.005,"max_grad_norm":1.0,"micro_batch_size":0,"optimizer":"adamw","schedule":"cosine","steps":10,"warmup_ratio":0.0,"weight_decay":0.0}}','completed','2026-11-21T19:35:33.562534+00:00','0.2.0','abababababababababababababababababababababababababababababababab','cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd','','78b3080bd576fe8232562cdf424b5e03fdf51269786809de671a0e6e8cf87da3','');
CREATE TABLE updates (
        run_id VARCHAR NOT NULL, round INTEGER NOT NULL, client VARCHAR NOT NULL,
        status VARCHAR NOT NULL, code VARCHAR NOT NULL, message TEXT NOT NULL,
        weight INTEGER NOT NULL, num_examples INTEGER NOT NULL, digest VARCHAR NOT NULL,
        bytes_up INTEGER NOT NULL, bytes_down INTEGER NOT NULL, bytes_setup INTEGER NOT NULL,
        seconds FLOAT NOT NULL, metrics JSON NOT NULL, privacy JSON NOT NULL DEFAULT 'null', kept FLOAT, distance FLOAT, PRIMARY KEY (run_id, round, client),
        FOREIGN KEY(run_id) REFERENCES runs (id));
INSERT INTO "updates" VALUES('demo-20261121-193533-6c50',0,'client-0','accepted','','',10,10,'',50,0,5000,2.0,'{}','null',NULL,NULL);
INSERT INTO "updates" VALUES('demo-20261121-193533-6c50',0,'client-1','accepted','','',10,10,'',50,0,5000,2.0,'{}','null',NULL,NULL);
INSERT INTO "updates" VALUES('demo-20261121-193533-6c50',0,'client-2','accepted','','',10,10,'',50,0,5000,2.0,'{}','null',NULL,NULL);
INSERT INTO "updates" VALUES('demo-20261121-193533-6c50',1,'client-0','accepted','','',10,10,'',1000,1100,0,2.0,'{}','null',NULL,NULL);
INSERT INTO "updates" VALUES('demo-20261121-193533-6c50',1,'client-1','refused','FEDFT-5016','norm 12000 is over 10000',10,10,'',1000,1100,0,2.0,'{}','null',NULL,NULL);
INSERT INTO "updates" VALUES('demo-20261121-193533-6c50',1,'client-2','failed','','its process ended',10,10,'',0,1100,0,2.0,'{}','null',NULL,NULL);
INSERT INTO "updates" VALUES('demo-20261121-193533-6c50',2,'client-0','accepted','','',10,10,'',1000,1100,0,2.0,'{}','null',NULL,NULL);
INSERT INTO "updates" VALUES('demo-20261121-193533-6c50',2,'client-1','refused','FEDFT-5016','norm 12000 is over 10000',10,10,'',1000,1100,0,2.0,'{}','null',NULL,NULL);
INSERT INTO "updates" VALUES('demo-20261121-193533-6c50',2,'client-2','failed','','its process ended',10,10,'',0,1100,0,2.0,'{}','null',NULL,NULL);
COMMIT;
PRAGMA user_version = 6;
