/* ids.h: giving a user namespace its maps. See user_namespaces(7), newuidmap(1). */
#ifndef LR_IDS_H
#define LR_IDS_H

#include "plan.h"

int lr_ids_map_self(const struct lr_plan *plan, struct lr_error *err);
int lr_ids_map_range(const struct lr_plan *plan, pid_t pid, struct lr_error *err);
int lr_ids_map_helper(const struct lr_plan *plan, pid_t pid, struct lr_error *err);
int lr_ids_map_ungrouped(const struct lr_plan *plan, pid_t pid, struct lr_error *err);
int lr_ids_become(const struct lr_plan *plan, uid_t uid, gid_t gid, struct lr_error *err);

#endif
